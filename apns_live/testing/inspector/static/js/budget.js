// The meter of an activity's hourly budget of priority-10 pushes.

import { h } from "./dom.js";
import { relative } from "./format.js";
import { ticks } from "./ticking.js";

const PIPS = 20;

export function budgetMeter(budget, now, { label = "Priority 10" } = {}) {
  if (!budget)
    return h(
      "div",
      { class: "meter none" },
      h("span", { class: "meter-label" }, label),
      h("span", { class: "meter-text" }, "no limit"),
    );
  const { capacity, remaining } = budget;
  const share = capacity > 0 ? remaining / capacity : 0;
  const level = remaining === 0 ? "spent" : share <= 0.34 ? "low" : "good";
  const marks =
    capacity > 0 && capacity <= PIPS
      ? h(
          "span",
          { class: "pips" },
          Array.from({ length: capacity }, (_, index) =>
            h("i", { class: index < remaining ? "full" : null }),
          ),
        )
      : h("span", { class: "bar-track", style: { "--fill": String(share) } }, h("i"));
  return h(
    "div",
    {
      class: "meter",
      "data-level": level,
      role: "meter",
      "aria-label": `${label} budget`,
      "aria-valuemin": 0,
      "aria-valuemax": capacity,
      "aria-valuenow": remaining,
      "aria-valuetext": `${remaining} of ${capacity} left`,
    },
    h("span", { class: "meter-label" }, label),
    marks,
    h("span", { class: "meter-text" }, h("b", null, remaining), `/${capacity}`),
    budget.refills_at !== null && remaining < capacity
      ? h(
          "span",
          { class: "meter-refill" },
          "refills ",
          h("span", ticks("relative", budget.refills_at), relative(budget.refills_at, now)),
        )
      : null,
  );
}
