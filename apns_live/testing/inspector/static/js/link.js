// Whether the page hears of the fake, said in the header and, when not, in a banner.

import { announce } from "./announce.js";
import { byId, h } from "./dom.js";

const LABELS = { connecting: "Connecting", live: "Live", broken: "Disconnected" };

export class Link {
  constructor(store, tryNow) {
    this.store = store;
    this.banner = byId("banner");
    this.text = h("span");
    const button = h("button", { type: "button", class: "button small" }, "Try now");
    button.addEventListener("click", tryNow);
    this.banner.append(this.text, button);
  }

  update(changes) {
    if (!changes.link) return;
    const { state } = this.store.link;
    const box = byId("link-state");
    const before = box.dataset.state;
    box.dataset.state = state;
    box.lastElementChild.textContent = LABELS[state];
    document.body.dataset.link = state;
    this.text.textContent =
      "Disconnected from the fake. What you see is the last that was heard of.";
    this.banner.hidden = state !== "broken";
    if (state === "live" && before === "broken") announce("Connected again.");
  }
}
