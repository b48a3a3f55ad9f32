// The Calls panel: a call to edit and send, and below it those that were made, the newest first.

import { toast, trying } from "./announce.js";
import { copy } from "./copy.js";
import { byId, foreign, h, morphChildren } from "./dom.js";
import { Editor } from "./editor.js";
import { count, timeOfDay } from "./format.js";
import { asCurl, asNode, filled } from "./samples.js";
import { verdict } from "./words.js";

const STEPS = [
  ["start", "Start"],
  ["update", "Update"],
  ["end", "End"],
];
const METHODS = ["POST", "PUT", "PATCH", "DELETE", "GET"];
const DRAFT = "apns-live-call";

export class Calls {
  constructor(store, gateway, openDetail) {
    Object.assign(this, { store, gateway, openDetail, selected: null });
    this.list = h("ol", { class: "calls" });
    this.list.addEventListener("click", (event) => {
      const row = event.target.closest("[data-call]");
      if (row) openDetail("call", Number(row.dataset.call));
    });
  }

  /** Build the panel, once there is a gateway. */
  build() {
    const { setup } = this.gateway;
    const options = (pairs) => pairs.map(([value, label]) => h("option", { value }, label));
    this.api = h(
      "select",
      { id: "call-api" },
      options(Object.entries(setup.apis).map(([id, api]) => [id, api.name])),
    );
    this.step = h(
      "select",
      { id: "call-step" },
      options([...STEPS, ["", "Your own"]]),
    );
    this.method = h("select", { "aria-label": "Method" }, options(METHODS.map((each) => [each, each])));
    this.path = h("input", {
      type: "text",
      "aria-label": "Path",
      spellcheck: "false",
      autocomplete: "off",
      autocapitalize: "off",
    });
    const button = (label, act, className = "button small") => {
      const made = h("button", { type: "button", class: className }, label);
      made.addEventListener("click", act);
      return made;
    };
    this.send = button("Send", () => this.makeCall(), "button primary");
    this.editor = new Editor({
      label: "Request body, JSON",
      onInput: () => {
        this.send.disabled = this.busy || this.editor.found !== null;
        this.keep();
      },
      onSubmit: () => this.makeCall(),
    });
    const example = () => this.choose(this.api.value, this.step.value || "start");
    this.api.addEventListener("change", () => this.choose(this.api.value, "start"));
    this.step.addEventListener("change", example);
    this.path.addEventListener("input", () => this.keep());
    this.method.addEventListener("change", () => this.keep());
    const field = (label, node) =>
      h("div", { class: "field" }, h("label", { for: node.id }, label), node);
    byId("panel-calls").append(
      h(
        "form",
        { class: "call-form", "aria-label": "Make a call" },
        h("div", { class: "fields" }, field("API", this.api), field("Example", this.step)),
        h("div", { class: "call-line" }, this.method, this.path),
        this.editor.node,
        h(
          "div",
          { class: "actions" },
          this.send,
          button("Format", () => this.editor.format()),
          button("Copy as curl", () => this.copyAs(asCurl)),
          button("Copy for Node", () => this.copyAs(asNode)),
        ),
        h(
          "p",
          { class: "hint" },
          "Ctrl or ⌘ and Enter sends. The key of the API is added by the server. Calls of your own server to ",
          h("code", null, setup.url),
          " appear here too. Every call of its own API can be tried in ",
          h("a", { href: `${setup.url}/reference`, target: "_blank", rel: "noreferrer" }, "the reference"),
          ".",
        ),
      ),
      h("h3", { class: "calls-title" }, "Calls"),
      this.list,
    );
    byId("panel-calls").firstElementChild.addEventListener("submit", (event) =>
      event.preventDefault(),
    );
    this.recall();
    this.draw();
  }

  /** Put an example into the editor. */
  choose(api, step) {
    const sample = this.gateway.setup.apis[api]?.steps[step];
    if (!sample) return;
    if (step === "start") this.activities[api] = `demo-${Math.random().toString(16).slice(2, 10)}`;
    const { states, ...values } = this.gateway.setup.values;
    const { path, body } = filled(sample, {
      ...values,
      state: states[step],
      activity: this.activities[api] ?? "start-one-first",
    });
    Object.assign(this.api, { value: api });
    Object.assign(this.step, { value: step });
    this.show({ api, step, method: "POST", path, body: JSON.stringify(body, null, 2) });
  }

  show({ api, step, method, path, body }) {
    this.api.value = api;
    this.step.value = step ?? "";
    this.method.value = method;
    this.path.value = path;
    this.editor.value = body;
  }

  draft() {
    return {
      api: this.api.value,
      step: this.step.value,
      method: this.method.value,
      path: this.path.value,
      body: this.editor.value,
    };
  }

  keep() {
    try {
      const { app } = this.gateway.setup.values;
      const kept = { app, activities: this.activities, draft: this.draft() };
      sessionStorage.setItem(DRAFT, JSON.stringify(kept));
    } catch {
      // The draft then lasts as long as the page.
    }
  }

  recall() {
    let kept = null;
    try {
      kept = JSON.parse(sessionStorage.getItem(DRAFT));
    } catch {
      // Then it begins afresh.
    }
    const known = kept?.app === this.gateway.setup.values.app;
    this.activities = known ? kept.activities : {};
    if (known) this.show(kept.draft);
    else this.choose(Object.keys(this.gateway.setup.apis)[0], "start");
  }

  async makeCall() {
    if (this.busy || this.editor.found) return;
    this.busy = this.send.disabled = true;
    const { api, step, method, path, body } = this.draft();
    const answer = await trying(() => this.gateway.send(api, method, path, body));
    this.busy = false;
    this.send.disabled = this.editor.found !== null;
    if (!answer) return;
    const good = answer.status < 300;
    toast(`${this.gateway.nameOf(api)} answered ${answer.status}.`, good ? "plain" : "problem");
    // An API that names activities itself says the name when it starts one.
    if (good && answer.body?.activity_id) this.activities[api] = answer.body.activity_id;
    if (good && step === "start") this.choose(api, "update");
    if (good && step === "end") this.choose(api, "start");
    await trying(() => this.gateway.read());
  }

  copyAs(how) {
    if (this.editor.found) return toast("Mend the JSON first.", "problem");
    const { url, apis } = this.gateway.setup;
    const draft = this.draft();
    return copy(how({ ...draft, url, api: apis[draft.api] }));
  }

  /** Put a call that was made into the editor. */
  again(call) {
    const { apis } = this.gateway.setup;
    this.show({
      api: Object.hasOwn(apis, call.api) ? call.api : "native",
      step: null,
      method: call.method,
      path: call.path,
      body: typeof call.request === "string" ? call.request : JSON.stringify(call.request, null, 2),
    });
    this.editor.text.focus();
  }

  select(number) {
    this.selected = number;
    this.draw();
  }

  draw() {
    if (!this.gateway.setup) return;
    const pushes = pushesById(this.store);
    const calls = [...this.gateway.calls.values()].reverse();
    morphChildren(
      this.list,
      calls.length
        ? calls.map((call) => this.row(call, pushes))
        : [h("li", { class: "panel-empty" }, "No call yet. Send one, or let your server send one.")],
    );
  }

  row(call, pushes) {
    const kind = kindOf(call);
    return h(
      "li",
      { "data-key": call.number },
      h(
        "button",
        {
          type: "button",
          class: "call-row",
          "data-call": call.number,
          "aria-current": this.selected === call.number ? "true" : null,
        },
        h("i", { class: "dot", "data-kind": kind }),
        h(
          "span",
          { class: "push-main" },
          h("b", null, this.gateway.nameOf(call.api)),
          foreign(`${call.method} ${call.path}`, "push-device", 200),
          h("span", { class: "push-verdict", "data-kind": kind }, call.status || "…"),
        ),
        h(
          "span",
          { class: "push-sub" },
          h("span", { class: "push-number" }, `#${call.number}`),
          h("span", { class: "push-why" }, becameOf(this.gateway.operationsOf(call), pushes)),
          h("time", null, timeOfDay(call.at)),
        ),
      ),
    );
  }
}

export const kindOf = (call) =>
  call.status === 0 ? "received" : call.status < 300 ? "delivered" : "refused";

export const pushesById = (store) =>
  new Map([...store.pushes.values()].map((push) => [push.apns_id, push]));

/** What became of a call's pushes, counted: `5 pushes: 4 delivered, 1 stored`. */
function becameOf(operations, pushes) {
  const counts = new Map();
  let queued = 0;
  for (const operation of operations) {
    queued += operation.queued;
    for (const outcome of operation.outcomes) {
      const label = labelOf(outcome, pushes).toLowerCase();
      counts.set(label, (counts.get(label) ?? 0) + 1);
    }
  }
  const total = [...counts.values()].reduce((sum, each) => sum + each, 0);
  const parts = [...counts].map(([label, each]) => `${count(each)} ${label}`);
  return [
    total ? `${count(total)} ${total === 1 ? "push" : "pushes"}: ${parts.join(", ")}` : "no push",
    queued ? `${count(queued)} wait for a token` : null,
  ]
    .filter(Boolean)
    .join("; ");
}

/** What became of one push, in a word or two. */
export function labelOf(outcome, pushes) {
  const push = pushes.get(outcome.apns_id);
  if (push) return verdict(push).label;
  return outcome.status === 200 ? "Accepted" : outcome.reason || outcome.verdict;
}
