// Any content state: its values found, named and laid out, however deep and odd it is.

import { foreign, h, isObject } from "../dom.js";
import { dayAndYear, moment, relative, value as numberText, words } from "../format.js";
import { ticks } from "../ticking.js";
import { dateOf, swiftDate, textOf } from "./values.js";

const DEPTH = 4;
const ROWS = 24;
const TILES = 3;
const LONG = 14;

/** List the values of a state as rows `{name, value, depth, head}`, at most `limit` of them. */
export function rowsOf(state, limit = ROWS) {
  const rows = [];
  let left = 0;
  const add = (row) => (rows.length < limit ? rows.push(row) : (left += 1));
  const walk = (node, depth) => {
    for (const [name, value] of Object.entries(node)) {
      if (rows.length >= limit) {
        left += 1;
        continue;
      }
      if (
        isObject(value) ||
        (Array.isArray(value) && value.some((each) => typeof each === "object" && each))
      ) {
        const size = Object.keys(value).length;
        if (depth >= DEPTH || size === 0) {
          add({ name, value: size ? `${size} more inside` : "empty", depth });
        } else {
          add({ name, depth, head: true });
          walk(value, depth + 1);
        }
      } else {
        add({ name, value, depth });
      }
    }
  };
  if (isObject(state)) walk(state, 0);
  return { rows, left };
}

/** A value as a node. */
export function valueNode(name, value, now) {
  if (value === null) return h("span", { class: "faint" }, "none");
  if (typeof value === "boolean")
    return h("span", { class: value ? "yes" : "no" }, value ? "Yes" : "No");
  const date = dateOf(name, value);
  if (date !== null) {
    return h(
      "span",
      { class: "date" },
      moment(date, now),
      " ",
      h("i", ticks("relative", date), relative(date, now)),
      swiftDate(value) === null
        ? null
        : h(
            "b",
            {
              class: "date-off",
              title: "Swift decodes a Date from seconds since 2001, unless the app chooses otherwise.",
            },
            `as a Swift Date: ${dayAndYear(swiftDate(value))}`,
          ),
    );
  }
  if (typeof value === "number") return h("span", { class: "number" }, numberText(value));
  if (Array.isArray(value)) {
    if (value.length === 0) return h("span", { class: "faint" }, "empty");
    const shown = value
      .slice(0, 6)
      .map((each) => h("span", { class: "chip" }, foreign(each === null ? "none" : each, "", 24)));
    return h(
      "span",
      { class: "chips" },
      shown,
      value.length > 6 ? h("span", { class: "faint" }, `+${value.length - 6}`) : null,
    );
  }
  return foreign(value, "text", 200);
}

const isTile = (name, value) =>
  (typeof value === "number" && dateOf(name, value) === null) ||
  (typeof value === "string" && value.length > 0 && value.length <= 5 && /\d/.test(value));

/** Split the top level: short values that make large tiles, and the rest. */
export function split(state) {
  const entries = isObject(state) ? Object.entries(state) : [];
  const tiles = entries.filter(([name, value]) => isTile(name, value)).slice(0, TILES);
  const taken = new Set(tiles.map(([name]) => name));
  // Object.fromEntries defines its keys, so that `__proto__` stays an ordinary one.
  return { tiles, rest: Object.fromEntries(entries.filter(([name]) => !taken.has(name))) };
}

/** The label of a key: what the attributes call it (`home` -> `FCB`), or the key in words. */
function labelOf(name, attributes) {
  const called = textOf(attributes, name);
  return called !== null && called.length <= 24 ? called : words(name);
}

/** The body of a card. `limit` is how many rows there is room for. */
export function genericBody(state, { attributes, now, limit = 5 }) {
  const { tiles, rest } = split(state);
  const { rows, left } = rowsOf(rest, tiles.length ? Math.max(2, limit - 3) : limit);
  if (!tiles.length && !rows.length)
    return h("p", { class: "card-note" }, "The content state is empty.");
  return h(
    "div",
    { class: "generic" },
    tiles.length
      ? h(
          "dl",
          { class: "tiles", "data-count": tiles.length },
          tiles.map(([name, value]) =>
            h(
              "div",
              null,
              h("dt", null, foreign(labelOf(name, attributes), "", 40)),
              h("dd", null, foreign(typeof value === "number" ? numberText(value) : value, "", 24)),
            ),
          ),
        )
      : null,
    rows.length ? rowList(rows, now) : null,
    left ? h("p", { class: "card-note" }, `${left} more`) : null,
  );
}

export function rowList(rows, now) {
  return h(
    "dl",
    { class: "rows" },
    rows.map((row) =>
      h(
        "div",
        {
          class: row.head ? "row head" : "row",
          style: { "--depth": String(Math.min(row.depth, DEPTH)) },
        },
        h("dt", null, foreign(words(row.name), "", 60)),
        row.head ? null : h("dd", null, valueNode(row.name, row.value, now)),
      ),
    ),
  );
}

/** What the Dynamic Island has room for: the best two short values, or fewer. */
export function glance(state, now) {
  const entries = isObject(state) ? Object.entries(state) : [];
  const numbers = entries
    .filter(([name, value]) => isTile(name, value))
    .map(([, value]) => numberText(value));
  if (numbers.length >= 2 && `${numbers[0]}${numbers[1]}`.length <= 6)
    return `${numbers[0]}:${numbers[1]}`;
  if (numbers.length) return numbers[0].slice(0, LONG);
  for (const [name, value] of entries) {
    const date = dateOf(name, value);
    if (date !== null) return relative(date, now);
    if (typeof value === "string" && value !== "") return value.slice(0, LONG);
    if (typeof value === "boolean") return value ? "Yes" : "No";
  }
  const nested = entries.find(([, value]) => isObject(value));
  return nested ? glance1(nested[1]) : "…";
}

function glance1(node) {
  const scalar = Object.values(node).find(
    (value) => typeof value === "number" || (typeof value === "string" && value !== ""),
  );
  return scalar === undefined ? "…" : String(scalar).slice(0, LONG);
}
