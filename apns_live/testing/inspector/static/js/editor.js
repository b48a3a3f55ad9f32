// A JSON editor: numbered lines, and the first error with its line while somebody types.

import { h, morphChildren } from "./dom.js";
import { problemOf } from "./json_check.js";

export class Editor {
  constructor({ label, onInput, onSubmit }) {
    this.onInput = onInput;
    this.lines = h("div", { class: "editor-lines", "aria-hidden": "true" });
    this.text = h("textarea", {
      id: "call-body",
      rows: "14",
      wrap: "off",
      spellcheck: "false",
      autocomplete: "off",
      autocapitalize: "off",
      "aria-label": label,
      "aria-describedby": "call-problem",
    });
    this.problem = h("p", { class: "editor-problem", id: "call-problem", role: "status" });
    this.node = h("div", null, h("div", { class: "editor" }, this.lines, this.text), this.problem);
    this.text.addEventListener("input", () => this.check());
    this.text.addEventListener("scroll", () => {
      this.lines.scrollTop = this.text.scrollTop;
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      onSubmit();
    });
    this.problem.addEventListener("click", (event) => {
      if (!event.target.closest("button")) return;
      this.text.focus();
      this.text.setSelectionRange(this.found.at, this.found.at + 1);
    });
  }

  get value() {
    return this.text.value;
  }

  set value(text) {
    this.text.value = text;
    this.check();
  }

  /** An empty text is a call without a body. */
  check() {
    this.found = this.value.trim() === "" ? null : problemOf(this.value);
    const { found } = this;
    const count = this.value.split("\n").length;
    this.node.style.setProperty("--lines", String(count));
    morphChildren(
      this.lines,
      Array.from({ length: count }, (_, index) =>
        h("span", { class: index + 1 === found?.line ? "wrong" : null }, index + 1),
      ),
    );
    this.text.setAttribute("aria-invalid", String(found !== null));
    morphChildren(
      this.problem,
      found
        ? [
            h("button", { type: "button", class: "link-button" }, `Line ${found.line}`),
            h("span", null, `: ${found.says}.`),
          ]
        : [],
    );
    this.onInput();
  }

  format() {
    if (!this.found && this.value.trim() !== "")
      this.value = JSON.stringify(JSON.parse(this.value), null, 2);
  }
}
