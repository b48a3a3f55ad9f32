// Counts at the top, and how many pushes came in each of the last seconds.

import { byId, h, morphChildren } from "./dom.js";
import { count } from "./format.js";

const SECONDS = 60;

export class Summary {
  constructor(store) {
    this.store = store;
    this.rates = new Array(SECONDS).fill(0);
    this.before = null;
  }

  total() {
    const counts = this.store.counts;
    return counts ? counts.received + counts.refused : 0;
  }

  second() {
    const total = this.total();
    const apart = this.before === null || total < this.before ? 0 : total - this.before;
    this.before = this.store.counts ? total : null;
    this.rates = [...this.rates.slice(1), apart];
    this.draw();
  }

  draw() {
    const counts = this.store.counts;
    if (!counts) return;
    const figures = [
      ["Received", counts.received, "received", ""],
      ["Delivered", counts.delivered + counts["delivered from storage"], "delivered", ""],
      ["Stored", counts.stored, "stored", ""],
      ["Ignored", counts.discarded, "discarded", top(counts.discarded_by)],
      ["Refused", counts.refused, "refused", top(counts.refused_by)],
      ["Activities", counts.activities, "", ""],
    ];
    morphChildren(byId("summary"), [
      h(
        "div",
        { class: "rate" },
        h("p", null, h("b", null, count(this.rates.at(-1))), " pushes/s"),
        sparkline(this.rates),
      ),
      h(
        "dl",
        { class: "figures" },
        figures.map(([name, value, kind, most]) =>
          h(
            "div",
            { "data-kind": kind || null, "data-zero": value === 0 ? "" : null },
            h("dt", null, name),
            h("dd", null, count(value), most ? h("span", { class: "most" }, most) : null),
          ),
        ),
      ),
    ]);
  }
}

function top(by) {
  const [most] = Object.entries(by).sort((a, b) => b[1] - a[1]);
  return most ? most[0] : "";
}

function sparkline(rates) {
  const high = Math.max(1, ...rates);
  const points = rates.map(
    (rate, index) => `${(index * 120) / (SECONDS - 1)},${(27 - (rate / high) * 24).toFixed(1)}`,
  );
  return h(
    "svg",
    {
      class: "sparkline",
      viewBox: "0 0 120 28",
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    },
    h("path", { class: "area", d: `M0,28 L${points.join(" L")} L120,28 Z` }),
    h("polyline", { points: points.join(" ") }),
  );
}
