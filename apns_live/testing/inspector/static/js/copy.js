// The clipboard.

import { toast } from "./announce.js";

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied.");
  } catch {
    toast("The browser does not allow copying here.", "problem");
  }
}
