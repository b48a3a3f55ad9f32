// The fixed kinds of content state: each says whether it fits a state, and draws its parts.
//
// `body` is the card's middle, `glance` what the compact Dynamic Island shows at its end,
// `ring` a share from 0 to 1 where there is one, for the minimal Dynamic Island.

import { foreign, h, isObject, own } from "../dom.js";
import { value as numberText } from "../format.js";
import { share, ticked, ticks } from "../ticking.js";
import { numberOf, scalarOf, textOf, tint } from "./values.js";

const SEGMENTS = 24;
const METRICS = 8;

const bar = (fraction) =>
  h("div", { class: "bar-track", style: { "--fill": String(fraction) } }, h("i"));
const clamp = (fraction) => Math.min(1, Math.max(0, fraction));

const steps = {
  fits: (state) =>
    numberOf(state, "number_of_steps") > 0 && numberOf(state, "current_step") !== null,
  body(state) {
    const total = Math.floor(numberOf(state, "number_of_steps"));
    const done = numberOf(state, "current_step");
    const colors = own(state, "step_colors");
    const tintOf = (index) =>
      (Array.isArray(colors) && tint({ color: colors[index] })) || tint(state, "step_color");
    const segments = Array.from({ length: Math.min(total, SEGMENTS) }, (_, index) =>
      h("i", {
        class: `${index < done ? "done" : ""} ${index < done ? tintOf(index) : ""}`.trim() || null,
      }),
    );
    return h(
      "div",
      { class: "stack" },
      total > SEGMENTS ? bar(clamp(done / total)) : h("div", { class: "step-track" }, segments),
      h("p", { class: "figure" }, h("b", null, numberText(done)), ` of ${numberText(total)}`),
    );
  },
  glance: (state) =>
    `${numberText(numberOf(state, "current_step"))}/${numberText(numberOf(state, "number_of_steps"))}`,
  ring: (state) => clamp(numberOf(state, "current_step") / numberOf(state, "number_of_steps")),
};

const progress = {
  fits: (state) =>
    numberOf(state, "percentage") !== null ||
    (numberOf(state, "value") !== null && numberOf(state, "upper_limit") > 0),
  share: (state) =>
    clamp(
      numberOf(state, "percentage") !== null
        ? numberOf(state, "percentage") / 100
        : numberOf(state, "value") / numberOf(state, "upper_limit"),
    ),
  body(state) {
    const fraction = progress.share(state);
    const beside =
      numberOf(state, "percentage") === null
        ? `${numberText(numberOf(state, "value"))} of ${numberText(numberOf(state, "upper_limit"))}`
        : null;
    return h(
      "div",
      { class: "stack" },
      bar(fraction),
      h(
        "p",
        { class: "figure" },
        h("b", null, `${Math.round(fraction * 100)} %`),
        beside ? h("span", null, beside) : null,
      ),
    );
  },
  glance: (state) => `${Math.round(progress.share(state) * 100)} %`,
  ring: (state) => progress.share(state),
};

function metricsOf(state) {
  const given = own(state, "metrics");
  return Array.isArray(given)
    ? given.filter((each) => textOf(each, "label") !== null && scalarOf(each, "value") !== null)
    : [];
}
const metricText = (metric) => {
  const value = own(metric, "value");
  return typeof value === "number" ? numberText(value) : value;
};
const metricUnit = (metric) => textOf(metric, "unit");

const metrics = {
  fits: (state) => metricsOf(state).length > 0,
  body: (state, { limit }) =>
    h(
      "dl",
      { class: "metrics" },
      metricsOf(state)
        .slice(0, Math.min(METRICS, limit > 8 ? METRICS : limit > 3 ? 4 : 2))
        .map((metric) =>
          h(
            "div",
            { class: tint(metric) || null },
            h("dt", null, foreign(textOf(metric, "label"), "", 40)),
            h(
              "dd",
              null,
              foreign(metricText(metric), "", 64),
              metricUnit(metric)
                ? h("span", { class: "unit" }, foreign(metricUnit(metric), "", 12))
                : null,
            ),
          ),
        ),
    ),
  glance: (state) =>
    `${metricText(metricsOf(state)[0])}${metricUnit(metricsOf(state)[0]) ?? ""}`.slice(0, 14),
};

const stats = {
  ...metrics,
  body: (state, { limit }) =>
    h(
      "dl",
      { class: "rows stats" },
      metricsOf(state)
        .slice(0, Math.min(METRICS, limit))
        .map((metric) =>
          h(
            "div",
            { class: `row ${tint(metric)}`.trim() },
            h("dt", null, foreign(textOf(metric, "label"), "", 40)),
            h(
              "dd",
              null,
              foreign(metricText(metric), "", 64),
              metricUnit(metric)
                ? h("span", { class: "unit" }, foreign(metricUnit(metric), "", 12))
                : null,
            ),
          ),
        ),
    ),
};

const alert = {
  fits: (state) => textOf(state, "message") !== null,
  body: (state) => h("p", { class: "message" }, foreign(textOf(state, "message"), "", 600)),
  glance: (state) =>
    (textOf(own(state, "badge"), "title") ?? textOf(state, "title") ?? "Alert").slice(0, 14),
};

const timer = {
  fits: (state) =>
    numberOf(state, "started_at") !== null ||
    numberOf(state, "frozen_remaining") !== null ||
    numberOf(state, "frozen_elapsed") !== null,
  /** Return what the clock shows: a moment it runs from or to, or seconds that stand still. */
  reading(state) {
    const started = numberOf(state, "started_at");
    const ends = numberOf(state, "ends_at");
    const down = own(state, "counts_down") !== false && ends !== null;
    const frozen = numberOf(state, "frozen_remaining") ?? numberOf(state, "frozen_elapsed");
    if (own(state, "is_running") === false || started === null)
      return { kind: "countdown", still: frozen ?? 0, started, ends };
    return { kind: down ? "countdown" : "elapsed", at: down ? ends : started, started, ends };
  },
  node(state, now) {
    const { kind, at, still } = timer.reading(state);
    if (at === undefined) return h("span", { class: "timer still" }, ticked("countdown", still, 0));
    return h("span", { class: "timer", ...ticks(kind, at) }, ticked(kind, at, now));
  },
  body(state, { now }) {
    const { at, started, ends, still } = timer.reading(state);
    const full = started !== null && ends !== null;
    const fraction = full
      ? at === undefined
        ? clamp(
            own(state, "counts_down") === false
              ? still / (ends - started)
              : 1 - still / (ends - started),
          )
        : share(started, ends, now)
      : null;
    return h(
      "div",
      { class: "stack" },
      h(
        "p",
        { class: "figure large" },
        timer.node(state, now),
        at === undefined ? h("span", { class: "pill" }, "Paused") : null,
      ),
      fraction === null
        ? null
        : h(
            "div",
            {
              class: "bar-track",
              style: { "--fill": String(fraction) },
              "data-fill-from": at === undefined ? null : started,
              "data-fill-to": at === undefined ? null : ends,
            },
            h("i"),
          ),
    );
  },
  glance: (state, now) => timer.node(state, now),
};

const value = {
  fits: (state) => scalarOf(state, "value") !== null,
  text: (state) => (typeof state.value === "number" ? numberText(state.value) : state.value),
  body: (state) => h("p", { class: "figure huge" }, foreign(value.text(state), "", 120)),
  glance: (state) => value.text(state).slice(0, 14),
};

const KINDS = new Map([
  ["segmented_progress", steps],
  ["counter", steps],
  ["countdown", steps],
  ["progress", progress],
  ["metrics", metrics],
  ["stats", stats],
  ["alert", alert],
  ["timer", timer],
  ["value", value],
]);

/** The kind that draws a state, or null: then it is drawn as any other. */
export function kindOf(state) {
  if (!isObject(state) || textOf(state, "title") === null) return null;
  const kind = KINDS.get(own(state, "type"));
  return kind && kind.fits(state) ? kind : null;
}
