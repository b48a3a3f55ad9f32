// What changes as seconds pass: elements say what they show, one timer sets all of them.

import { duration, hourMinute, relative, stopwatch } from "./format.js";

const SHOWS = new Map([
  ["countdown", (at, now) => stopwatch(at - now)],
  ["elapsed", (at, now) => stopwatch(now - at)],
  ["relative", (at, now) => relative(at, now)],
  ["left", (at, now) => duration(at - now)],
  ["hour-minute", (_, now) => hourMinute(now)],
]);

/** Attributes of an element that shows `kind` of the moment `at` (seconds since 1970). */
export const ticks = (kind, at) => ({ "data-tick": kind, "data-at": at });

/** The text that such an element shows now. */
export const ticked = (kind, at, now) => SHOWS.get(kind)(at, now);

export function tick(root, now) {
  for (const node of root.querySelectorAll("[data-tick]")) {
    const text = SHOWS.get(node.dataset.tick)?.(Number(node.dataset.at), now);
    if (text !== undefined && node.textContent !== text) node.textContent = text;
  }
  for (const node of root.querySelectorAll("[data-fill-from]")) {
    node.style.setProperty(
      "--fill",
      String(share(Number(node.dataset.fillFrom), Number(node.dataset.fillTo), now)),
    );
  }
}

/** How much of the time between two moments is over, 0 to 1. */
export function share(from, to, now) {
  return to > from ? Math.min(1, Math.max(0, (now - from) / (to - from))) : 1;
}
