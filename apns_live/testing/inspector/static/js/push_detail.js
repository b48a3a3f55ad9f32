// One push in detail: what APNs answered, what became of it on the phone, its headers and its body.

import { trying } from "./announce.js";
import { get } from "./api.js";
import { foreign, h } from "./dom.js";
import { facts, when } from "./facts.js";
import { count, firstDigits, timeOfDay } from "./format.js";
import { jsonText, visible } from "./json_view.js";
import { eventOf } from "./pushes.js";
import { detailOf, said, verdict } from "./words.js";

export class PushDetail {
  constructor(store, number, redraw) {
    Object.assign(this, {
      store,
      number,
      redraw,
      push: store.pushes.get(number) ?? null,
      shown: store.pushes.get(number),
    });
    this.ask();
  }

  async ask() {
    const found = await trying(() => get(`/v1/pushes/${this.number}`));
    if (found) this.push = found;
    if (found?.explain) {
      this.why = await trying(() => get(`/v1/explain/${encodeURIComponent(found.explain)}`));
    }
    this.redraw();
  }

  changed(changes) {
    if (!changes.pushes) return false;
    const now = this.store.pushes.get(this.number);
    if (now && now !== this.shown) {
      this.shown = now;
      this.again = true;
    }
    return false;
  }

  second() {
    if (!this.again) return;
    this.again = false;
    this.ask();
  }

  title() {
    return h("span", null, `Push #${this.number}`);
  }

  content(now) {
    const { push } = this;
    if (!push) return [h("p", { class: "panel-empty" }, "Asking…")];
    const told = verdict(push);
    return [
      h(
        "div",
        { class: "verdict", "data-kind": told.kind },
        h(
          "p",
          null,
          h("i", { class: "dot", "data-kind": told.kind }),
          h("b", null, told.label),
          h("span", null, `${push.status} ${push.reason}`.trim()),
        ),
        told.text && push.status === 200
          ? h("p", null, foreign(visible(told.text), "", 600))
          : null,
        detailOf(push)
          ? h("p", { class: "faint" }, foreign(visible(detailOf(push)), "", 300))
          : null,
      ),
      this.why
        ? h(
            "details",
            { class: "json" },
            h("summary", null, `Explain “${push.explain}”`),
            facts([
              ["Meaning", this.why.meaning],
              ["Whose", this.why.fault],
              ["What to do", this.why.remedy],
              ["Log on the phone", this.why.log || null],
            ]),
          )
        : h("span"),
      push.channel
        ? h(
            "p",
            { class: "faint" },
            `${count(push.delivered)} of ${count(push.subscribers)} subscribers`,
          )
        : h("span"),
      h("h3", null, "On its way"),
      push.log?.length
        ? h(
            "ol",
            { class: "log" },
            push.log
              .slice(-50)
              .map((entry) =>
                h(
                  "li",
                  { class: "log-row", "data-key": entry.sequence },
                  h("i", { class: "dot", "data-kind": dotOf(entry) }),
                  h(
                    "span",
                    { class: "log-what" },
                    h("b", null, entry.state),
                    entry.why ? foreign(visible(said(entry)), "", 300) : null,
                    detailOf(entry) ? foreign(visible(detailOf(entry)), "faint", 200) : null,
                  ),
                  h("time", null, timeOfDay(entry.time)),
                ),
              ),
          )
        : h(
            "p",
            { class: "faint" },
            push.status === 200 ? "Nothing yet." : "APNs refused it; no phone heard of it.",
          ),
      h("h3", null, "Request"),
      facts([
        ["Received", when(push.received_at, now)],
        [
          "Phone",
          push.device
            ? h(
                "button",
                { type: "button", class: "link-button", "data-open-phone": push.device },
                foreign(push.device, "", 40),
              )
            : null,
        ],
        ["Event", eventOf(push)],
        ["Timestamp", when(push.timestamp, now)],
        ["Token", push.token ? h("code", null, `${firstDigits(push.token)}…`) : null],
        ["Channel", push.channel],
        ["Topic", push.topic],
        ["Push type", push.push_type],
        ["Priority", push.priority],
        [
          "Expiration",
          push.expiration
            ? when(push.expiration, now)
            : push.expiration === 0
              ? "0, never stored"
              : null,
        ],
        ["Collapse id", push.collapse_id === null ? null : visible(push.collapse_id)],
        ["apns-id", push.apns_id],
        ["apns-unique-id", push.apns_unique_id],
        ["Connection", `#${push.connection}`],
        ["Size", `${count(push.size)} bytes`],
      ]),
      h("h3", null, "Body"),
      push.payload !== null && push.payload !== undefined
        ? h("pre", { tabindex: "0" }, jsonText(push.payload))
        : h("pre", { tabindex: "0" }, visible(push.body ?? "").slice(0, 4096) || "empty"),
    ];
  }
}

function dotOf(entry) {
  if (entry.state.startsWith("delivered")) return "delivered";
  return entry.state;
}
