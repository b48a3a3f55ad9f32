// Connections: streams and windows of each, and a GOAWAY on demand.

import { toast, trying } from "./announce.js";
import { post } from "./api.js";
import { byId, foreign, h, morphChildren } from "./dom.js";
import { count, relative } from "./format.js";
import { ticks } from "./ticking.js";

const DRAWN = 60;
const WINDOW = 65_535;

export class Connections {
  constructor(store) {
    this.store = store;
    this.box = byId("panel-connections");
    this.box.addEventListener("click", async (event) => {
      const id = event.target.closest("[data-goaway]")?.dataset.goaway;
      if (id === undefined) return;
      if (await trying(() => post(`/v1/connections/${id}/goaway`, {})))
        toast(`GOAWAY was sent on connection ${id}.`);
    });
  }

  update(changes) {
    if (!changes.connections) return;
    const open = this.store.connections.filter((each) => each.state !== "closed").length;
    const badge = byId("connections-count");
    badge.hidden = open === 0;
    badge.textContent = count(open);
    if (this.box.hidden) this.stale = true;
    else this.show();
  }

  show() {
    this.stale = false;
    const now = this.store.now();
    const all = [...this.store.connections]
      .reverse()
      .sort((a, b) => (a.state === "closed") - (b.state === "closed"));
    morphChildren(
      this.box,
      all.length === 0
        ? [h("p", { class: "panel-empty" }, "No connection yet.")]
        : [
            h(
              "ul",
              { class: "connections" },
              all.slice(0, DRAWN).map((each) => connection(each, now)),
            ),
            all.length > DRAWN
              ? h("p", { class: "card-note" }, `${all.length - DRAWN} more`)
              : h("span"),
          ],
    );
  }
}

function gauge(label, value, most) {
  if (value === null)
    return h(
      "div",
      { class: "gauge" },
      h("span", null, label),
      h("span", { class: "faint" }, "not known"),
    );
  const share = most ? Math.min(1, Math.max(0, value / most)) : 0;
  return h(
    "div",
    { class: "gauge" },
    h("span", null, label),
    h("span", { class: "bar-track", style: { "--fill": String(share) } }, h("i")),
    h(
      "span",
      { class: "gauge-text" },
      count(value),
      h("span", { class: "faint" }, most === null ? "" : ` / ${count(most)}`),
    ),
  );
}

function connection(each, now) {
  return h(
    "li",
    { class: "connection", "data-key": each.id, "data-state": each.state },
    h(
      "div",
      { class: "connection-head" },
      h("b", null, `#${each.id}`),
      h("span", { class: "state", "data-look": each.state }, each.state),
      h("span", { class: "faint" }, each.face === "manage" ? "management" : "pushes"),
      each.state === "open"
        ? h(
            "button",
            {
              type: "button",
              class: "chip-button",
              "data-goaway": each.id,
              "aria-label": `Send GOAWAY on connection ${each.id}`,
            },
            "GOAWAY",
          )
        : null,
    ),
    h(
      "p",
      { class: "connection-from" },
      foreign(each.peer, "", 60),
      each.key_id ? foreign(`key ${each.key_id}`, "", 30) : null,
      h(
        "span",
        ticks("relative", each.closed_at ?? each.opened_at),
        relative(each.closed_at ?? each.opened_at, now),
      ),
    ),
    each.state === "closed"
      ? null
      : h(
          "div",
          { class: "gauges" },
          gauge("Streams", each.open_streams, each.max_streams),
          gauge("Window", each.window, each.window === null ? null : Math.max(WINDOW, each.window)),
        ),
    h(
      "p",
      { class: "connection-counts" },
      h("span", { "data-kind": "delivered" }, `${count(each.accepted)} accepted`),
      h(
        "span",
        { "data-kind": each.refused ? "refused" : "none" },
        `${count(each.refused)} refused`,
      ),
    ),
  );
}
