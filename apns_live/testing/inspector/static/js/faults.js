// Injecting faults and taking them away again.

import { announce, toast, trying } from "./announce.js";
import { post, remove } from "./api.js";
import { byId, foreign, h, morphChildren } from "./dom.js";
import { count } from "./format.js";
import { faultText, KINDS, REASONS, SCOPE } from "./fault_kinds.js";

export class Faults {
  constructor(store) {
    this.store = store;
    this.box = byId("panel-faults");
    this.build();
  }

  build() {
    this.kind = h(
      "select",
      { id: "fault-action", name: "action" },
      KINDS.map((each) => h("option", { value: each.action }, each.label)),
    );
    this.kind.addEventListener("change", () => this.drawFields());
    this.what = h("p", { class: "hint", id: "fault-what" });
    this.kind.setAttribute("aria-describedby", "fault-what");
    this.fields = h("div", { class: "fields" });
    this.scope = h("div", { class: "fields" });
    this.form = h(
      "form",
      { class: "fault-form", "aria-label": "Inject a fault" },
      h(
        "div",
        { class: "field full" },
        h("label", { for: "fault-action" }, "What goes wrong"),
        this.kind,
        this.what,
      ),
      this.fields,
      h("details", { class: "scope" }, h("summary", null, "Whom, when, how often"), this.scope),
      h("button", { class: "button primary", type: "submit" }, "Inject fault"),
    );
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.inject();
    });
    this.list = h("div", { class: "faults" });
    this.list.addEventListener("click", (event) => this.onClick(event));
    this.box.append(this.form, this.list);
    this.drawFields();
    this.show();
  }

  chosen() {
    return KINDS.find((each) => each.action === this.kind.value);
  }

  drawFields() {
    const kind = this.chosen();
    this.what.textContent = kind.what;
    this.fields.replaceChildren(...kind.fields.map(field));
    this.scope.replaceChildren(
      ...SCOPE.filter((each) => !(each.request && kind.connection)).map(field),
    );
  }

  async inject() {
    const kind = this.chosen();
    const given = new FormData(this.form);
    const fault = { action: kind.action };
    for (const each of [...kind.fields, ...SCOPE]) {
      const text = given.get(each.name);
      if (text === null || text === "") continue;
      if (each.name === "percent") {
        if (Number(text) !== 100) fault.fraction = Number(text) / 100;
      } else if (each.type === "checkbox") fault[each.name] = true;
      else fault[each.name] = each.type === "number" ? Number(text) : text.trim();
    }
    const made = await trying(() => post("/v1/faults", fault));
    if (made) announce(`Fault ${made.id}, ${kind.label}, is in force.`);
  }

  async onClick(event) {
    const button = event.target.closest("button");
    if (!button) return;
    const id = button.dataset.remove;
    await trying(async () => {
      await remove(id === undefined ? "/v1/faults" : `/v1/faults/${id}`);
      announce(id === undefined ? "All faults were removed." : `Fault ${id} was removed.`);
      this.kind.focus();
    });
    if (id === undefined) toast("All faults were removed.");
  }

  update(changes) {
    if (!changes.faults) return;
    const badge = byId("faults-count");
    badge.hidden = this.store.faults.length === 0;
    badge.textContent = count(this.store.faults.length);
    this.show();
  }

  show() {
    const faults = this.store.faults;
    if (faults.length === 0) {
      morphChildren(this.list, [
        h("p", { class: "panel-empty" }, "A good day: nothing goes wrong."),
      ]);
      return;
    }
    morphChildren(this.list, [
      h(
        "div",
        { class: "list-head" },
        h("h3", null, "In force"),
        h("button", { type: "button", class: "link-button" }, "Remove all"),
      ),
      h(
        "ul",
        { class: "fault-list" },
        faults.slice(0, 100).map((each) => {
          const { title, detail } = faultText(each);
          return h(
            "li",
            { class: "fault", "data-key": each.id },
            h(
              "div",
              null,
              foreign(title, "fault-title", 60),
              detail ? foreign(detail, "fault-detail", 200) : null,
            ),
            h("p", { class: "fault-count" }, h("b", null, count(each.fired)), " struck"),
            h(
              "button",
              {
                type: "button",
                class: "icon-button small",
                "data-remove": each.id,
                "aria-label": `Remove fault ${each.id}, ${title}`,
              },
              "×",
            ),
          );
        }),
      ),
    ]);
  }
}

let made = 0;

function field(spec) {
  made += 1;
  const id = `field-${made}`;
  const label = h(
    "label",
    { for: id },
    spec.label,
    spec.optional ? h("span", { class: "faint" }, " (optional)") : null,
  );
  if (spec.type === "checkbox")
    return h(
      "div",
      { class: "field check" },
      h("input", { id, type: "checkbox", name: spec.name }),
      label,
    );
  if (spec.type === "reason") {
    const options = REASONS.map(([name, status]) =>
      h("option", { value: name, selected: name === spec.value }, `${status} ${name}`),
    );
    if (spec.optional) options.unshift(h("option", { value: "" }, "No reason"));
    return h("div", { class: "field full" }, label, h("select", { id, name: spec.name }, options));
  }
  const input = h("input", {
    id,
    type: spec.type,
    name: spec.name,
    value: spec.value ?? "",
    min: spec.min,
    max: spec.max,
    step: spec.step,
    pattern: spec.pattern,
    required: !spec.optional,
    autocomplete: "off",
    spellcheck: "false",
  });
  return h(
    "div",
    { class: "field" },
    label,
    h(
      "span",
      { class: "input-unit" },
      input,
      spec.unit ? h("span", { class: "unit" }, spec.unit) : null,
    ),
  );
}
