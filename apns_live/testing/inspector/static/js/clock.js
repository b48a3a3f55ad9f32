// The fake's clock: what it says, moving it, and jumping to the next thing that time will do.

import { nextOnTheClock } from "./activities.js";
import { announce, trying } from "./announce.js";
import { post } from "./api.js";
import { byId, foreign, h, morph } from "./dom.js";
import { dayName, duration, timeOfDay } from "./format.js";

const STEPS = [
  ["1 min", 60],
  ["15 min", 900],
  ["1 h", 3600],
  ["8 h", 28_800],
];
const UNITS = { s: 1, min: 60, h: 3600, d: 86_400 };

export class ClockPanel {
  constructor(store) {
    this.store = store;
    this.box = byId("clock");
    this.box.addEventListener("click", (event) => {
      const button = event.target.closest("[data-advance]");
      if (button) this.advance(Number(button.dataset.advance));
      else if (event.target.closest("[data-jump]") && this.next)
        this.advance(Math.max(0, this.next.at - this.store.now()) + 0.05);
    });
    this.build();
  }

  build() {
    this.time = h("p", { class: "clock-time" });
    this.day = h("p", { class: "clock-day" });
    this.nextBox = h("div", { class: "clock-next" });
    const amount = h("input", {
      type: "number",
      name: "amount",
      min: "0",
      max: "9600",
      step: "any",
      value: "10",
      "aria-label": "How far to move the clock",
    });
    const unit = h(
      "select",
      { name: "unit", "aria-label": "Unit" },
      Object.keys(UNITS).map((each) =>
        h("option", { value: each, selected: each === "min" }, each),
      ),
    );
    const form = h(
      "form",
      { class: "clock-form" },
      amount,
      unit,
      h("button", { class: "button", type: "submit" }, "Advance"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (amount.value !== "") this.advance(Number(amount.value) * UNITS[unit.value]);
    });
    this.box.append(
      h("div", { class: "clock-head" }, h("h2", { id: "clock-title" }, "Clock"), this.day),
      this.time,
      h(
        "div",
        { class: "clock-steps", role: "group", "aria-label": "Advance by" },
        STEPS.map(([label, seconds]) =>
          h(
            "button",
            {
              type: "button",
              class: "chip-button",
              "data-advance": seconds,
              "aria-label": `Advance ${label}`,
            },
            `+${label}`,
          ),
        ),
        form,
      ),
      this.nextBox,
    );
  }

  async advance(seconds) {
    const clock = await trying(() => post("/v1/clock/advance", { seconds }));
    if (clock) announce(`The clock moved by ${duration(seconds)}.`);
  }

  /** Called every second and when the clock was moved. */
  draw() {
    const { clock } = this.store;
    if (!clock) return;
    const now = this.store.now();
    const time = timeOfDay(now);
    if (this.time.textContent !== time) this.time.textContent = time;
    this.time.dataset.simulated = String(clock.simulated);
    this.day.textContent = [
      dayName(now),
      clock.simulated
        ? "moves only when told"
        : clock.offset > 0.5
          ? `${duration(clock.offset)} ahead`
          : "",
    ]
      .filter(Boolean)
      .join(" · ");
    this.next = nextOnTheClock(this.store.devices.values(), now);
    this.nextBox = morph(
      this.nextBox,
      this.next
        ? h(
            "div",
            { class: "clock-next" },
            h(
              "p",
              null,
              foreign(this.next.device.id, "phone-id", 24),
              ` ${this.next.what} in `,
              h("b", null, duration(this.next.at - now)),
            ),
            h("button", { type: "button", class: "link-button", "data-jump": "" }, "Go there"),
          )
        : h("div", { class: "clock-next" }, h("p", { class: "faint" }, "Nothing falls due.")),
    );
  }
}
