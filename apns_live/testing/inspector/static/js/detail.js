// The detail panel: shows one thing at a time, gives the focus back when it closes.

import { CallDetail } from "./call_detail.js";
import { copy } from "./copy.js";
import { byId, h, morphChildren } from "./dom.js";
import { icon } from "./icons.js";
import { PhoneDetail } from "./phone_detail.js";
import { PushDetail } from "./push_detail.js";

export class Detail {
  constructor(store, calls, onSelect) {
    Object.assign(this, { store, calls, onSelect, page: null, kind: null, subject: null, from: null });
    this.box = byId("detail");
    this.heading = h("h2", { id: "detail-title", tabindex: "-1" });
    this.body = h("div", { class: "drawer-body" });
    this.back = h(
      "button",
      { type: "button", class: "icon-button", "aria-label": "Close", title: "Close (Esc)" },
      icon("xmark"),
    );
    this.box.append(h("div", { class: "drawer-head" }, this.heading, this.back), this.body);
    this.back.addEventListener("click", () => this.close());
    this.box.addEventListener("click", (event) => this.onClick(event));
    this.box.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.close();
    });
  }

  open(kind, subject) {
    if (this.box.hidden) this.from = { kind, subject };
    Object.assign(this, { kind, subject });
    const redraw = () => this.draw();
    const close = () => this.close();
    this.page =
      kind === "phone"
        ? new PhoneDetail(this.store, subject, redraw, close)
        : kind === "call"
          ? new CallDetail(this.store, this.calls, subject, close)
          : new PushDetail(this.store, subject, redraw);
    this.box.hidden = false;
    document.body.dataset.detail = "open";
    this.body.replaceChildren();
    this.body.scrollTop = 0;
    this.draw();
    this.heading.focus({ preventScroll: true });
    this.onSelect(kind, subject);
  }

  close() {
    if (this.box.hidden) return;
    this.box.hidden = true;
    this.page = null;
    delete document.body.dataset.detail;
    this.onSelect(null, null, this.from);
  }

  draw() {
    if (!this.page) return;
    morphChildren(this.heading, [this.page.title()]);
    morphChildren(this.body, this.page.content(this.store.now()));
  }

  update(changes) {
    if (this.page?.changed(changes)) this.draw();
  }

  second() {
    this.page?.second();
  }

  async onClick(event) {
    const button = event.target.closest("button");
    if (!button || !this.page) return;
    if (button.dataset.openPush) this.open("push", Number(button.dataset.openPush));
    else if (button.dataset.openPhone !== undefined) this.open("phone", button.dataset.openPhone);
    else if (button.dataset.copy) copy(button.dataset.copy);
    else if (button.dataset.act) await this.page.act(button);
  }
}
