// One call in detail: what was asked and answered, and the pushes that it became.

import { kindOf, labelOf, pushesById } from "./calls.js";
import { foreign, h } from "./dom.js";
import { facts, when } from "./facts.js";
import { count, duration } from "./format.js";
import { jsonText, visible } from "./json_view.js";
import { verdict } from "./words.js";

export class CallDetail {
  constructor(store, calls, number, close) {
    Object.assign(this, { store, calls, number, close });
  }

  get call() {
    return this.calls.gateway.calls.get(this.number);
  }

  changed(changes) {
    return changes.calls || changes.pushes;
  }

  second() {}

  title() {
    return h("span", null, `Call #${this.number}`);
  }

  async act() {
    const { call } = this;
    if (!call) return;
    this.close();
    this.calls.again(call);
  }

  content(now) {
    const { call } = this;
    const { gateway } = this.calls;
    if (!call)
      return [h("p", { class: "panel-empty" }, "This call is not known, or no longer kept.")];
    const pushes = pushesById(this.store);
    const operations = gateway.operationsOf(call);
    const kind = kindOf(call);
    return [
      h(
        "div",
        { class: "verdict", "data-kind": kind },
        h(
          "p",
          null,
          h("i", { class: "dot", "data-kind": kind }),
          h("b", null, call.status || "No answer yet"),
          h("span", null, gateway.nameOf(call.api)),
        ),
        h("code", null, foreign(`${call.method} ${call.path}`, "", 400)),
      ),
      h(
        "div",
        { class: "actions" },
        h(
          "button",
          { type: "button", class: "button small", "data-act": "again" },
          "Put into the editor",
        ),
      ),
      facts([
        ["Received", when(call.at, now)],
        ["Took", call.ended === null ? null : took(call.ended - call.at)],
      ]),
      h("h3", null, "Pushes"),
      operations.length
        ? h(
            "div",
            { class: "detail-activities" },
            operations.map((each) => operationOf(each, pushes)),
          )
        : h("p", { class: "faint" }, "It became no push."),
      h("h3", null, "Request"),
      h("pre", { tabindex: "0", "aria-label": "Request body" }, bodyText(call.request)),
      h("h3", null, "Answer"),
      h("pre", { tabindex: "0", "aria-label": "Answer body" }, bodyText(call.response)),
    ];
  }
}

const took = (seconds) =>
  seconds < 1 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : duration(seconds);

const bodyText = (body) =>
  (typeof body === "string" ? visible(body).slice(0, 8192) : jsonText(body)) || "empty";

function operationOf(operation, pushes) {
  const { kind, status, targeted, queued, outcomes } = operation;
  return h(
    "section",
    { "data-key": operation.id },
    h(
      "p",
      { class: "faint" },
      [
        `${kind}: ${status}`,
        `${count(targeted)} ${targeted === 1 ? "device" : "devices"}`,
        queued ? `${count(queued)} wait for a token` : null,
        outcomes.length ? null : "no push yet",
      ]
        .filter(Boolean)
        .join(", "),
    ),
    h(
      "ol",
      { class: "log" },
      outcomes.map((outcome) => rowOf(outcome, pushes)),
    ),
  );
}

function rowOf(outcome, pushes) {
  const push = pushes.get(outcome.apns_id);
  const told = push ? verdict(push) : null;
  const kind = told?.kind ?? (outcome.status === 200 ? "received" : "refused");
  return h(
    "li",
    { "data-key": outcome.apns_id },
    h(
      push ? "button" : "div",
      {
        type: push ? "button" : null,
        class: "log-row",
        "data-open-push": push ? push.number : null,
      },
      h("i", { class: "dot", "data-kind": kind }),
      h(
        "span",
        { class: "log-what" },
        h("b", null, foreign(outcome.device ?? "channel", "", 60)),
        h("span", { "data-kind": kind }, labelOf(outcome, pushes)),
        told?.text ? foreign(told.text, "faint", 160) : null,
      ),
      h("span", { class: "faint" }, push ? `#${push.number}` : String(outcome.status || "")),
    ),
  );
}
