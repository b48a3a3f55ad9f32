// One phone: frame, Dynamic Island, Lock Screen, and the caption below.

import { inIsland, lastDismissed, mainActivity, onLockScreen } from "./activities.js";
import { budgetMeter } from "./budget.js";
import {
  cardText,
  compactIsland,
  expandedIsland,
  ghostCard,
  lockCard,
  lookOf,
  minimalIsland,
  pick,
} from "./card.js";
import { foreign, h, isObject } from "./dom.js";
import { dayName, hourMinute } from "./format.js";
import { icon } from "./icons.js";
import { ticks } from "./ticking.js";
import { verdict, WHY } from "./words.js";

const WALLPAPERS = 6;
const CARDS = 2;

/** The phone as an option of the list. `expanded`: show the large Dynamic Island. */
export function phoneNode(device, { now, lastPush, expanded, index, total, current, selected }) {
  const main = mainActivity(device);
  return h(
    "div",
    {
      class: "phone-item",
      role: "option",
      id: `phone-${index}`,
      "data-id": device.id,
      "data-key": device.id,
      "data-look": main ? lookOf(main) : "none",
      tabindex: current ? "0" : "-1",
      "aria-selected": selected ? "true" : "false",
      "aria-setsize": total,
      "aria-posinset": index + 1,
    },
    // Its name. What is drawn is hidden from those who hear the page: an option has text alone.
    h("span", { class: "hidden-label" }, spoken(device, main, now)),
    h(
      "div",
      {
        class: "phone",
        "data-online": String(device.online),
        "data-awake": String(device.awake),
        "aria-hidden": "true",
      },
      h(
        "div",
        { class: `screen wallpaper-${pick(device.id, WALLPAPERS)}` },
        statusBar(device),
        island(device, now, expanded),
        lockScreen(device, now),
      ),
    ),
    caption(device, main, lastPush, now),
  );
}

function statusBar(device) {
  return h(
    "div",
    { class: "status-bar" },
    h("span", { class: "no-service" }, device.online ? "" : "SOS"),
    h("i", { class: "battery", "data-low": String(device.low_power) }),
  );
}

function island(device, now, expanded) {
  if (!device.has_dynamic_island) return h("div", { class: "island-row notch" });
  const [first, second] = inIsland(device);
  if (!first)
    return h(
      "div",
      { class: "island-row" },
      h("div", { class: "island bare", "data-key": "bare" }),
    );
  if (expanded) return h("div", { class: "island-row" }, expandedIsland(first, now));
  return h(
    "div",
    { class: "island-row" },
    compactIsland(first, now),
    second ? minimalIsland(second, now) : null,
  );
}

function lockScreen(device, now) {
  const shown = onLockScreen(device);
  const gone = shown.length === 0 ? lastDismissed(device) : null;
  const notice = shown.length < CARDS ? device.notifications.at(-1) : null;
  return h(
    "div",
    { class: "lock-screen" },
    h(
      "div",
      { class: "lock-clock" },
      h("p", { class: "lock-date" }, dayName(now)),
      h("p", { class: "lock-time", ...ticks("hour-minute", now) }, hourMinute(now)),
    ),
    h(
      "div",
      { class: "cards" },
      notice ? notification(notice) : null,
      shown.slice(0, CARDS).map((activity) => lockCard(activity, now, shown.length > 1 ? 3 : 8)),
      shown.length > CARDS ? h("p", { class: "more-cards" }, `${shown.length - CARDS} more`) : null,
      gone ? ghostCard(gone) : null,
    ),
    h(
      "div",
      { class: "lock-foot" },
      h("span", null, icon("torch")),
      h("i", { class: "home-bar" }),
      h("span", null, icon("camera")),
    ),
  );
}

/** A text of an alert, which may be `{"loc-key": ...}`. */
export function alertText(given) {
  if (typeof given === "string") return given;
  if (isObject(given) && typeof given["loc-key"] === "string") return given["loc-key"];
  return given === null || given === undefined ? "" : JSON.stringify(given).slice(0, 200);
}

function notification(notice) {
  return h(
    "div",
    { class: "notification", "data-key": "notice" },
    alertText(notice.title) ? foreign(alertText(notice.title), "title", 80) : null,
    alertText(notice.body) ? foreign(alertText(notice.body), "subtitle", 160) : null,
    alertText(notice.title) || alertText(notice.body)
      ? null
      : h("span", { class: "subtitle" }, `${notice.push_type} push`),
  );
}

function caption(device, main, lastPush, now) {
  const told = lastPush ? verdict(lastPush) : null;
  const trouble = told && told.kind !== "delivered" && told.kind !== "received" ? told : null;
  return h(
    "div",
    { class: "caption", "aria-hidden": "true" },
    h(
      "p",
      { class: "caption-name" },
      foreign(device.id, "phone-id", 40),
      h(
        "span",
        { class: "caption-flags" },
        flags(device).map((flag) => h("span", { class: "flag" }, flag)),
      ),
      main
        ? h("span", { class: "state", "data-look": lookOf(main) }, lookOf(main))
        : h("span", { class: "state", "data-look": "none" }, "idle"),
    ),
    main && main.state === "active"
      ? budgetMeter(main.budget, now)
      : h(
          "div",
          { class: "meter none" },
          h(
            "span",
            { class: "meter-text" },
            main ? "Takes no more pushes" : `iOS ${device.os_version}`,
          ),
        ),
    h(
      "p",
      { class: "caption-last", "data-kind": trouble?.kind ?? told?.kind ?? "none" },
      told ? h("i", { class: "dot", "data-kind": told.kind }) : null,
      trouble
        ? h("span", { title: trouble.text }, `${trouble.label}: ${reason(lastPush)}`)
        : told
          ? `#${lastPush.number} ${told.label.toLowerCase()}`
          : "No push yet",
    ),
  );
}

const reason = (push) =>
  push.status === 200
    ? WHY.has(push.why)
      ? push.why
      : push.why || push.state
    : push.reason || push.status;

function flags(device) {
  return [
    device.online ? null : "offline",
    device.awake ? null : "asleep",
    device.low_power ? "low power" : null,
    device.live_activities_enabled ? null : "switched off",
    device.consent === "deny" ? "denied" : null,
    device.activities.some((each) => each.asks) ? "asks for consent" : null,
    device.stored ? `${device.stored} waiting` : null,
  ].filter(Boolean);
}

function spoken(device, main, now) {
  const parts = [device.id.slice(0, 80), ...flags(device)];
  if (main) {
    parts.push(`activity ${lookOf(main)}`, cardText(main, now));
    if (main.budget && main.state === "active")
      parts.push(`budget ${main.budget.remaining} of ${main.budget.capacity}`);
  } else parts.push("no activity");
  return parts.join(", ");
}
