// The presentations of an activity: Lock Screen card; Dynamic Island compact, minimal, expanded.

import { foreign, h, isObject, own } from "./dom.js";
import { hourMinute, words } from "./format.js";
import { symbol } from "./icons.js";
import { genericBody, glance } from "./states/generic.js";
import { kindOf } from "./states/typed.js";
import { textOf, tint } from "./states/values.js";
import { ticked, ticks } from "./ticking.js";

const APP_TINTS = ["orange", "blue", "green", "purple", "cyan", "magenta"];

/** A small number that is always the same for a text. */
export function pick(text, choices) {
  let sum = 1915;
  for (const letter of String(text).slice(0, 100))
    sum = Math.imul(sum ^ letter.codePointAt(0), 0x01000193) >>> 0;
  sum = Math.imul(sum ^ (sum >>> 15), 0x85ebca6b) >>> 0;
  return ((sum ^ (sum >>> 13)) >>> 0) % choices;
}

/** `com.example.scores` -> `Scores`. */
export function appName(activity) {
  return words(
    String(activity.bundle_id ?? "")
      .split(".")
      .at(-1) || "App",
  );
}

function typeName(activity) {
  const type = activity.attributes_type ?? "";
  return type ? words(type.replace(/(Live)?(Activity)?Attributes$/, "") || type) : "Live Activity";
}

/** The few words above a card: what the state says, or what the app and its attributes are called. */
function heading(activity, kind) {
  const state = activity.content_state;
  if (kind) return { title: textOf(state, "title"), subtitle: textOf(state, "subtitle") };
  const names = isObject(activity.attributes)
    ? Object.values(activity.attributes).filter(
        (each) => typeof each === "string" && each !== "" && each.length <= 60,
      )
    : [];
  return {
    title: typeName(activity),
    subtitle: names.length ? names.slice(0, 2).join(" · ") : null,
  };
}

/** The app's sign: the state's symbol where it can be drawn, else the app's first letter. */
function sign(activity, kind) {
  const state = activity.content_state;
  const named = kind ? own(state, "icon") : null;
  const name = textOf(named, "symbol");
  const drawn = name ? symbol(name) : null;
  const color =
    (kind && (tint(named) || tint(state))) ||
    `tint-${APP_TINTS[pick(activity.bundle_id, APP_TINTS.length)]}`;
  return h(
    "span",
    { class: `sign ${color}`, title: name?.slice(0, 80) ?? null },
    drawn ?? h("b", null, appName(activity).slice(0, 1)),
  );
}

function badge(state, kind) {
  const given = kind ? own(state, "badge") : null;
  const title = textOf(given, "title");
  return title === null
    ? null
    : h("span", { class: `pill ${tint(given)}`.trim() }, foreign(title, "", 24));
}

function accent(activity, kind) {
  return (
    (kind && tint(activity.content_state)) ||
    `tint-${APP_TINTS[pick(activity.bundle_id, APP_TINTS.length)]}`
  );
}

function body(activity, kind, now, limit) {
  const state = activity.content_state;
  if (state === null || state === undefined)
    return h("p", { class: "card-note" }, "No content state that can be shown.");
  if (kind) return kind.body(state, { now, limit });
  return genericBody(state, { attributes: activity.attributes, now, limit });
}

/** The card on the Lock Screen. `limit`: how many rows of values there is room for. */
export function lockCard(activity, now, limit = 5) {
  const kind = kindOf(activity.content_state);
  const { title, subtitle } = heading(activity, kind);
  return h(
    "div",
    {
      class: `card ${accent(activity, kind)}`,
      "data-key": activity.id,
      "data-look": lookOf(activity),
    },
    h(
      "div",
      { class: "card-head" },
      sign(activity, kind),
      h(
        "div",
        { class: "card-title" },
        foreign(title, "title", 80),
        subtitle ? foreign(subtitle, "subtitle", 120) : null,
      ),
      badge(activity.content_state, kind),
      lookTag(activity),
    ),
    h("div", { class: "card-body" }, body(activity, kind, now, limit)),
    activity.state === "ended" && activity.dismissal_date !== null
      ? h(
          "p",
          { class: "card-foot" },
          "Leaves in ",
          h(
            "span",
            ticks("left", activity.dismissal_date),
            ticked("left", activity.dismissal_date, now),
          ),
        )
      : null,
  );
}

/** A card in a few words, for those who hear it. */
export function cardText(activity, now) {
  const kind = kindOf(activity.content_state);
  const { title, subtitle } = heading(activity, kind);
  const shown = end(activity, kind, now);
  const value = shown instanceof Node ? null : shown; // a clock that runs
  return [title, subtitle, value].filter(Boolean).join(", ").slice(0, 160);
}

export function lookOf(activity) {
  if (activity.state !== "active") return activity.state;
  return activity.stale ? "stale" : "active";
}

function lookTag(activity) {
  const look = lookOf(activity);
  return look === "active" ? null : h("span", { class: "look" }, words(look));
}

/** What stays where a card has been. */
export function ghostCard(activity) {
  const when = activity.ended_at ?? activity.updated_at;
  return h(
    "div",
    { class: "card ghost", "data-key": activity.id, "data-look": "dismissed" },
    h(
      "p",
      null,
      h("b", null, "Dismissed"),
      foreign(`${typeName(activity)}, ended ${hourMinute(when)}`, "subtitle", 80),
    ),
  );
}

function end(activity, kind, now) {
  return kind ? kind.glance(activity.content_state, now) : glance(activity.content_state, now);
}

/** The two sides of the compact Dynamic Island. */
export function compactIsland(activity, now) {
  const kind = kindOf(activity.content_state);
  const shown = end(activity, kind, now);
  return h(
    "div",
    {
      class: `island compact ${accent(activity, kind)}`,
      "data-key": "compact",
      "data-look": lookOf(activity),
    },
    sign(activity, kind),
    h("span", { class: "glance" }, shown instanceof Node ? shown : foreign(shown, "", 14)),
  );
}

/** The small round one, for the second activity of a phone. */
export function minimalIsland(activity, now) {
  const kind = kindOf(activity.content_state);
  const ring = kind?.ring?.(activity.content_state);
  return h(
    "div",
    {
      class: `island minimal ${accent(activity, kind)}`,
      "data-key": "minimal",
      "data-look": lookOf(activity),
    },
    ring === undefined
      ? sign(activity, kind)
      : h("span", { class: "ring", style: { "--fill": String(ring) } }),
  );
}

/** The large one, as after a long press or with an alert. */
export function expandedIsland(activity, now, limit = 3) {
  const kind = kindOf(activity.content_state);
  const { title, subtitle } = heading(activity, kind);
  return h(
    "div",
    {
      class: `island expanded ${accent(activity, kind)}`,
      "data-key": "expanded",
      "data-look": lookOf(activity),
    },
    h(
      "div",
      { class: "card-head" },
      sign(activity, kind),
      h(
        "div",
        { class: "card-title" },
        foreign(title, "title", 60),
        subtitle ? foreign(subtitle, "subtitle", 80) : null,
      ),
      badge(activity.content_state, kind),
      lookTag(activity),
    ),
    h("div", { class: "card-body" }, body(activity, kind, now, limit)),
  );
}
