// The row of phones: search, filter, drawing, keyboard.

import { inIsland, mainActivity } from "./activities.js";
import { toast, trying } from "./announce.js";
import { activity as activityPath, get, post } from "./api.js";
import { lookOf } from "./card.js";
import { byId, h, morphChildren } from "./dom.js";
import { count } from "./format.js";
import { phoneNode } from "./phone.js";
import { VirtualList } from "./virtual.js";
import { verdict } from "./words.js";

const ALERT_SHOWN = 6000;
const REFILLS_AT_ONCE = 8;

export class Phones {
  constructor(store, openDetail) {
    this.store = store;
    this.openDetail = openDetail;
    this.mode = "compact";
    this.turned = new Set();
    this.selected = null;
    this.shown = [];
    this.alertCounts = new Map();
    this.alerting = new Map();
    this.list = new VirtualList({
      viewport: byId("phones-view"),
      canvas: byId("phones-list"),
      size: () => sizes(),
      draw: (key, index, total) => this.draw(key, index, total),
    });
    this.listen();
  }

  listen() {
    const canvas = byId("phones-list");
    canvas.addEventListener("keydown", (event) => this.onKey(event));
    canvas.addEventListener("click", (event) => {
      const item = event.target.closest("[data-id]");
      if (!item) return;
      this.list.moveTo(item.dataset.id, false);
      if (event.target.closest(".island")) this.turn(item.dataset.id);
      else this.open(item.dataset.id);
    });
    byId("search").addEventListener("input", () => this.filter());
    byId("which").addEventListener("change", () => this.filter());
    byId("add-phone").addEventListener("click", () => this.add());
    const modes = byId("island-mode");
    modes.addEventListener("click", (event) => {
      const button = event.target.closest("[data-mode]");
      if (button) this.setMode(button.dataset.mode);
    });
    modes.addEventListener("keydown", (event) => {
      if (!/^Arrow/.test(event.key)) return;
      event.preventDefault();
      this.setMode(this.mode === "compact" ? "expanded" : "compact");
      modes.querySelector("[aria-checked=true]").focus();
    });
  }

  onKey(event) {
    const id = event.target.closest("[data-id]")?.dataset.id;
    if (id === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    if (this.list.key(event)) return;
    if (event.key === "Enter" || event.key === " ") this.open(id);
    else if (event.key === "e" || event.key === "E") this.turn(id);
    else return;
    event.preventDefault();
  }

  setMode(mode) {
    this.mode = mode;
    this.turned.clear();
    for (const button of byId("island-mode").children) {
      const on = button.dataset.mode === mode;
      button.setAttribute("aria-checked", String(on));
      button.tabIndex = on ? 0 : -1;
    }
    this.list.refresh();
  }

  turn(id) {
    if (!this.alerting.delete(id) && !this.turned.delete(id)) this.turned.add(id);
    this.list.refresh(new Set([id]));
  }

  open(id) {
    this.openDetail("phone", id);
  }

  select(id) {
    const before = this.selected;
    this.selected = id;
    this.list.refresh(new Set([before, id]));
  }

  async add() {
    const made = await trying(() => post("/v1/devices", { attributes_types: ["GameAttributes"] }));
    if (made) toast(`${made.id} was added.`);
  }

  draw(key, index, total) {
    const device = this.store.devices.get(key);
    const now = this.store.now();
    const alerted = (this.alerting.get(key) ?? 0) > performance.now();
    return phoneNode(device, {
      now,
      index,
      total,
      lastPush: this.store.lastPush.get(key),
      expanded: (this.mode === "expanded") !== this.turned.has(key) || alerted,
      current: this.list.current === key,
      selected: this.selected === key,
    });
  }

  /** An alert opens the Dynamic Island for a while, as it does on a phone. */
  noticeAlerts(ids) {
    const now = performance.now();
    for (const id of ids) {
      const device = this.store.devices.get(id);
      const alerts = device ? inIsland(device).reduce((sum, each) => sum + each.alerts, 0) : 0;
      if (alerts > (this.alertCounts.get(id) ?? alerts)) this.alerting.set(id, now + ALERT_SHOWN);
      this.alertCounts.set(id, alerts);
    }
  }

  update(changes) {
    if (changes.all) {
      this.alertCounts.clear();
      this.alerting.clear();
      this.noticeAlerts(this.store.devices.keys());
    } else this.noticeAlerts(changes.devices);
    const filtering = byId("search").value !== "" || byId("which").value !== "all";
    if (changes.all || changes.order || (filtering && changes.devices.size))
      this.filter(changes.all ? null : changes.devices);
    else if (changes.devices.size) this.list.refresh(changes.devices);
    if (changes.fake || changes.order) this.drawEmpty();
  }

  filter(changed = null) {
    const { store } = this;
    const text = byId("search").value.trim().toLowerCase();
    const which = byId("which").value;
    const keys = [];
    for (const device of store.devices.values()) {
      if (
        fits(device, which, store.lastPush.get(device.id)) &&
        (text === "" || haystack(device).includes(text))
      )
        keys.push(device.id);
    }
    const same =
      keys.length === this.shown.length && keys.every((key, index) => key === this.shown[index]);
    this.shown = keys;
    if (same && changed) this.list.refresh(changed);
    else this.list.setKeys(keys);
    const all = store.devices.size;
    byId("phones-count").textContent =
      keys.length === all
        ? count(store.devicesTotal)
        : `${count(keys.length)} of ${count(store.devicesTotal)}`;
    const note = byId("phones-note");
    note.hidden = store.devicesTotal <= all;
    note.textContent = `The first ${count(all)} of ${count(store.devicesTotal)} phones are followed here. The control API has all of them.`;
    this.drawEmpty();
  }

  drawEmpty() {
    const box = byId("phones-empty");
    box.hidden = this.shown.length > 0 || !this.store.fake;
    if (box.hidden) return;
    const none = this.store.devices.size === 0;
    morphChildren(box, [
      h("div", { class: "empty-phone", "aria-hidden": "true" }, h("i")),
      h("h3", null, none ? "No phones yet" : "No phone fits"),
      none
        ? h(
            "p",
            null,
            "Send a push to ",
            h("code", null, this.store.fake?.endpoint ?? ""),
            " and its phone appears here, or add one and use its tokens.",
          )
        : h("p", null, "Change the search or the filter to see the others."),
    ]);
  }

  /** Called every second: close Dynamic Islands that an alert opened; ask for budgets that refilled. */
  async second() {
    for (const [id, until] of this.alerting) {
      if (until > performance.now()) continue;
      this.alerting.delete(id);
      this.list.refresh(new Set([id]));
    }
    if (this.store.link.state !== "live" || this.asking) return;
    this.asking = true;
    try {
      await this.askBudgets(this.store.now());
    } catch {
      // The stream says so when the fake is gone.
    } finally {
      this.asking = false;
    }
  }

  async askBudgets(now) {
    const due = [];
    for (const id of this.list.nodes.keys()) {
      for (const each of this.store.devices.get(id)?.activities ?? []) {
        if (each.state === "active" && each.budget?.refills_at && each.budget.refills_at <= now)
          due.push([id, each.id]);
      }
    }
    for (const [id, activityId] of due.slice(0, REFILLS_AT_ONCE)) {
      const fresh = await get(activityPath(activityId));
      const device = this.store.devices.get(id);
      if (device)
        this.store.putDevice({
          ...device,
          activities: device.activities.map((each) => (each.id === activityId ? fresh : each)),
        });
    }
  }

  focusSearch() {
    byId("search").focus();
    byId("search").select();
  }
}

function sizes() {
  const style = getComputedStyle(byId("phones-list"));
  const number = (name) => Number.parseFloat(style.getPropertyValue(name));
  return {
    width: number("--item-width"),
    height: number("--item-height"),
    gap: number("--item-gap"),
    sideways: style.getPropertyValue("--sideways").trim() === "1",
  };
}

function fits(device, which, lastPush) {
  if (which === "all") return true;
  if (which === "offline") return !device.online;
  if (which === "ignored") return lastPush !== undefined && verdict(lastPush).kind === "discarded";
  const main = mainActivity(device);
  if (which === "none") return main === null || main.state === "dismissed";
  return main !== null && lookOf(main) === which;
}

const haystacks = new WeakMap();

/** The text that a search looks through; made once for each row that the stream brings. */
function haystack(device) {
  let text = haystacks.get(device);
  if (text === undefined) haystacks.set(device, (text = searchable(device)));
  return text;
}

function searchable(device) {
  const parts = [
    device.id,
    `ios ${device.os_version}`,
    ...device.tokens.map((each) => `${each.token} ${each.bundle_id} ${each.attributes_type ?? ""}`),
  ];
  for (const each of device.activities)
    parts.push(
      each.id,
      each.bundle_id,
      each.attributes_type ?? "",
      each.state,
      JSON.stringify(each.attributes),
      JSON.stringify(each.content_state),
    );
  return parts.join(" ").toLowerCase();
}
