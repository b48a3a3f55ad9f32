// Lists of facts in the detail panel.

import { foreign, h } from "./dom.js";
import { moment, relative } from "./format.js";
import { ticks } from "./ticking.js";

/** `pairs`: [label, node or text]; those whose value is null are left out. */
export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([label, value]) =>
        h(
          "div",
          null,
          h("dt", null, label),
          h("dd", null, value instanceof Node ? value : foreign(value, "", 200)),
        ),
      ),
  );
}

/** A moment with how far away it is; null stays null. */
export function when(at, now) {
  if (at === null || at === undefined) return null;
  return h(
    "span",
    null,
    h("time", null, moment(at, now)),
    " ",
    h("span", { class: "faint", ...ticks("relative", at) }, relative(at, now)),
  );
}
