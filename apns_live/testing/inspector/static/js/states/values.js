// Reading the values of a content state: whatever the sender put there, or nothing.

import { own } from "../dom.js";

const COLORS = new Set([
  "lime",
  "green",
  "cyan",
  "blue",
  "purple",
  "magenta",
  "red",
  "orange",
  "yellow",
  "gray",
]);

export const textOf = (state, name) => {
  const found = own(state, name);
  return typeof found === "string" && found !== "" ? found : null;
};

export const numberOf = (state, name) => {
  const found = own(state, name);
  return typeof found === "number" && Number.isFinite(found) ? found : null;
};

export const scalarOf = (state, name) => textOf(state, name) ?? numberOf(state, name);

/** The class of a colour's name, or an empty one. */
export function tint(state, name = "color") {
  const found = own(state, name);
  return COLORS.has(found) ? `tint-${found}` : "";
}

const DATE_WORD =
  /(^|[a-z_\- ])(date|time|timestamp|at|until|end|ends|start|starts|eta|arrival|departure|deadline|due)$/i;
const CAMEL_DATE =
  /(Date|Time|Timestamp|At|Until|End|Ends|Start|Starts|Eta|Arrival|Departure|Deadline|Due)$/;
const ISO = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?$/;
const APPLE_EPOCH = 978_307_200;

/** Where a Swift `Date` would show a number that was meant as seconds or milliseconds since 1970, or null. */
export const swiftDate = (value) =>
  typeof value === "number" && value >= 1e9 ? value + APPLE_EPOCH : null;

/** The moment that a value means, in seconds since 1970, or null when it is not a date. */
export function dateOf(name, value) {
  if (typeof value === "string") {
    if (value.length > 40 || !ISO.test(value)) return null;
    const parsed = Date.parse(value);
    return Number.isNaN(parsed) ? null : parsed / 1000;
  }
  if (typeof value !== "number") return null;
  const short = name.slice(-40);
  if (!CAMEL_DATE.test(short) && !DATE_WORD.test(short)) return null;
  if (value >= 1e12 && value < 4e12) return value / 1000;
  if (value >= 1e9 && value < 4e9) return value;
  // Swift's Codable writes a Date as seconds since 2001.
  return value >= 6e8 && value < 1e9 ? value + APPLE_EPOCH : null;
}
