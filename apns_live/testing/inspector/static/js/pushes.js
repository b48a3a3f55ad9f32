// The stream of pushes, the newest first. It stands still while somebody reads further down.

import { byId, foreign, h, morph } from "./dom.js";
import { count, firstDigits, timeOfDay } from "./format.js";
import { VirtualList } from "./virtual.js";
import { verdict } from "./words.js";

const KINDS = [
  ["all", "All"],
  ["delivered", "Delivered"],
  ["stored", "Stored"],
  ["discarded", "Ignored"],
  ["refused", "Refused"],
];

export class Pushes {
  constructor(store, openDetail) {
    Object.assign(this, {
      store,
      openDetail,
      kind: "all",
      paused: false,
      missed: 0,
      selected: null,
    });
    this.build();
    this.list = new VirtualList({
      viewport: this.viewport,
      canvas: this.canvas,
      size: () => ({ width: 200, height: 58, gap: 0, sideways: false, columns: 1 }),
      draw: (key, index, total) => this.draw(key, index, total),
      onScroll: () => this.follow(),
    });
    this.newest = 0;
  }

  build() {
    this.filters = h(
      "div",
      { class: "segments wide", role: "radiogroup", "aria-label": "Which pushes" },
      KINDS.map(([kind, label], index) =>
        h(
          "button",
          {
            type: "button",
            role: "radio",
            "aria-checked": String(index === 0),
            tabindex: index === 0 ? "0" : "-1",
            "data-kind": kind,
          },
          label,
        ),
      ),
    );
    this.filters.addEventListener("click", (event) => {
      const button = event.target.closest("[data-kind]");
      if (button) this.choose(button);
    });
    this.filters.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      if (!Object.hasOwn(steps, event.key)) return;
      event.preventDefault();
      const all = [...this.filters.children];
      const next =
        all[(all.indexOf(document.activeElement) + steps[event.key] + all.length) % all.length];
      this.choose(next);
      next.focus();
    });
    this.search = h("input", {
      type: "search",
      placeholder: "Search device, token, reason or apns-id",
      "aria-label": "Search pushes",
      autocomplete: "off",
      spellcheck: "false",
    });
    this.search.addEventListener("input", () => {
      this.viewport.scrollTop = 0;
      this.show();
    });
    this.newer = h("button", { type: "button", class: "newer", hidden: true });
    this.newer.addEventListener("click", () => {
      this.viewport.scrollTop = 0;
      this.follow();
    });
    this.canvas = h("div", {
      class: "canvas",
      role: "listbox",
      "aria-label": "Pushes, the newest first",
    });
    this.canvas.addEventListener("keydown", (event) => {
      if (this.list.key(event)) return;
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      this.openDetail("push", Number(event.target.closest("[data-number]")?.dataset.number));
    });
    this.canvas.addEventListener("click", (event) => {
      const row = event.target.closest("[data-number]");
      if (!row) return;
      this.list.moveTo(Number(row.dataset.number), false);
      this.openDetail("push", Number(row.dataset.number));
    });
    this.empty = h("p", { class: "panel-empty" }, "No pushes yet.");
    this.viewport = h("div", { class: "push-list" }, this.canvas, this.empty);
    byId("panel-pushes").append(
      this.search,
      this.filters,
      h("div", { class: "push-frame" }, this.newer, this.viewport),
    );
  }

  choose(button) {
    this.kind = button.dataset.kind;
    for (const each of this.filters.children) {
      each.setAttribute("aria-checked", String(each === button));
      each.tabIndex = each === button ? 0 : -1;
    }
    this.viewport.scrollTop = 0;
    this.show();
  }

  follow() {
    const paused = this.viewport.scrollTop > 8;
    if (paused === this.paused) return;
    this.paused = paused;
    if (!paused) this.show();
  }

  select(number) {
    const before = this.selected;
    this.selected = number;
    this.list.refresh(new Set([before, number]));
  }

  update(changes) {
    if (!changes.pushes) return;
    if (byId("panel-pushes").hidden) this.stale = true;
    else if (this.paused && !changes.all) {
      const last = [...this.store.pushes.keys()].at(-1) ?? 0;
      this.newer.hidden = last <= this.newest;
      this.newer.textContent = `${count(last - this.newest)} newer`;
      this.list.refresh();
    } else this.show();
  }

  show() {
    this.stale = false;
    const keys = [];
    const text = this.search.value.trim().toLowerCase();
    for (const push of this.store.pushes.values())
      if ((this.kind === "all" || kindOf(push) === this.kind) && searchable(push).includes(text))
        keys.push(push.number);
    keys.sort((a, b) => b - a);
    this.newest = Math.max(0, ...this.store.pushes.keys());
    this.newer.hidden = true;
    this.empty.hidden = keys.length > 0;
    this.empty.textContent = this.store.pushes.size
      ? "None of these among the last ones."
      : "No pushes yet.";
    // The row that Tab reaches is the newest, unless somebody is in the list.
    if (!this.canvas.contains(document.activeElement)) this.list.current = keys[0] ?? null;
    this.list.setKeys(keys);
  }

  draw(number, index, total) {
    const push = this.store.pushes.get(number);
    const told = push ? verdict(push) : null;
    if (!push)
      return h(
        "div",
        {
          class: "push-row gone",
          role: "option",
          "data-key": number,
          "data-number": number,
          tabindex: "-1",
          "aria-selected": "false",
        },
        "No longer kept",
      );
    return h(
      "div",
      {
        class: "push-row",
        role: "option",
        "data-key": number,
        "data-number": number,
        "data-kind": told.kind,
        tabindex: this.list.current === number ? "0" : "-1",
        "aria-selected": this.selected === number ? "true" : "false",
        "aria-setsize": total,
        "aria-posinset": index + 1,
      },
      h("i", { class: "dot", "data-kind": told.kind }),
      h(
        "p",
        { class: "push-main" },
        h("b", null, eventOf(push)),
        push.device
          ? foreign(push.device, "push-device", 40)
          : push.channel
            ? h("span", { class: "push-device" }, "channel ", foreign(push.channel, "", 24))
            : h("code", null, firstDigits(push.token)),
        h(
          "span",
          { class: "push-verdict", "data-kind": told.kind },
          push.status === 200 ? told.label : String(push.status),
        ),
      ),
      h(
        "p",
        { class: "push-sub" },
        h("span", { class: "push-number" }, `#${number}`),
        told.text
          ? foreign(push.status === 200 ? told.text : push.reason, "push-why", 120)
          : h(
              "span",
              { class: "push-why plain" },
              `priority ${push.priority}, ${count(push.size)} B`,
            ),
        h("time", null, timeOfDay(push.received_at)),
      ),
    );
  }
}

export const eventOf = (push) => push.event ?? (push.push_type || "push").slice(0, 16);

/** The text that a search looks through. */
function searchable(push) {
  const { number, device, channel, token, topic, reason, why, collapse_id, apns_id } = push;
  const told = verdict(push);
  const parts = [eventOf(push), push.status, push.push_type, told.label, told.text];
  return [`#${number}`, device, channel, token, topic, reason, why, collapse_id, apns_id, ...parts]
    .join(" ")
    .toLowerCase();
}

function kindOf(push) {
  return verdict(push).kind;
}
