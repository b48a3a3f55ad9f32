// Messages to people: spoken ones, used sparingly, and short notes in the corner.

import { byId, h } from "./dom.js";

/** Say something to a screen reader. */
export function announce(text) {
  byId("live").textContent = text;
}

/** Show a note for a while; the box is a status region, so it is read out as well. */
export function toast(text, kind = "plain") {
  const box = byId("toasts");
  const note = h("p", { class: "toast", "data-kind": kind }, text);
  box.append(note);
  while (box.childElementCount > 3) box.firstElementChild.remove();
  setTimeout(() => note.remove(), kind === "problem" ? 9000 : 4500);
}

/** Do something and show what went wrong, if anything. */
export async function trying(work) {
  try {
    return await work();
  } catch (error) {
    toast(error.message, "problem");
    return undefined;
  }
}
