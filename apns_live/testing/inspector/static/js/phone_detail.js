// One phone in detail: its switches, each activity in every presentation, its tokens, its pushes.

import { trying } from "./announce.js";
import { activity as activityPath, call, device as devicePath, get, post, remove } from "./api.js";
import { budgetMeter } from "./budget.js";
import { compactIsland, expandedIsland, lockCard, lookOf, minimalIsland } from "./card.js";
import { foreign, h } from "./dom.js";
import { facts, when } from "./facts.js";
import { count, firstDigits, timeOfDay } from "./format.js";
import { jsonText } from "./json_view.js";
import { eventOf } from "./pushes.js";
import { detailOf, ENDED_BY, verdict } from "./words.js";

const PUSHES = 40;
const CONSENT = [
  ["allow", "Allow"],
  ["always", "Always Allow"],
  ["deny", "Don't Allow"],
];
const SWITCHES = [
  ["online", "Online"],
  ["awake", "Awake"],
  ["low_power", "Low Power Mode"],
  ["live_activities_enabled", "Live Activities"],
  ["frequent_pushes", "More frequent updates"],
];

export class PhoneDetail {
  constructor(store, id, redraw, close) {
    Object.assign(this, { store, id, redraw, close, pushes: null, asking: false, fetched: null });
    this.ask();
  }

  get device() {
    return this.store.devices.get(this.id) ?? this.fetched;
  }

  /** Ask for the newest pushes of this phone; at most once a second, and never two at a time. */
  async ask() {
    if (this.asking) {
      this.again = true;
      return;
    }
    this.asking = true;
    try {
      if (!this.store.devices.has(this.id)) this.fetched = await get(devicePath(this.id));
      const found = await get(
        `/v1/pushes?newest=1&limit=${PUSHES}&device=${encodeURIComponent(this.id)}`,
      );
      this.pushes = found.items;
    } catch {
      // The stream says so when the fake is gone.
    }
    this.asking = false;
    this.redraw();
  }

  changed(changes) {
    if (changes.all || changes.devices.has(this.id)) {
      this.again = true;
      return true;
    }
    return changes.order && !this.device;
  }

  second() {
    if (!this.again) return;
    this.again = false;
    this.ask();
  }

  title() {
    return foreign(this.id, "", 60);
  }

  async act(button) {
    const device = this.device;
    const { act, on, token } = button.dataset;
    if (!device) return;
    const path = devicePath(this.id);
    const put = (fresh) => fresh && this.store.putDevice(fresh);
    await trying(async () => {
      if (act === "switch") put(await call("PATCH", path, { [on]: !device[on] }));
      else if (act === "away") put(await call("PATCH", path, { offline_for: 600 }));
      else if (act === "consent") put(await post(`${path}/consent`, { answer: on }));
      else if (act === "open-app") put(await post(`${path}/open-app`));
      else if (act === "delete") {
        await remove(path);
        this.close();
      } else if (act === "kill") await post(`/v1/tokens/${token}/kill`, { as: "unregistered" });
      else {
        await post(`${activityPath(on)}/${act}`);
      }
      if (act !== "delete" && act !== "switch" && act !== "away") put(await get(path));
    });
  }

  content(now) {
    const { device } = this;
    if (!device)
      return [
        h(
          "p",
          { class: "panel-empty" },
          "This phone is gone: its app was deleted, or the fake was reset.",
        ),
      ];
    const activities = [...device.activities].reverse();
    return [
      h(
        "p",
        { class: "detail-sub" },
        `iOS ${device.os_version}`,
        device.automatic ? ", met by its first push" : "",
        device.has_dynamic_island ? "" : ", without Dynamic Island",
        device.stored ? `, ${device.stored} stored` : "",
      ),
      h(
        "div",
        { class: "switches", role: "group", "aria-label": "Switches of the phone" },
        SWITCHES.map(([name, label]) =>
          h(
            "button",
            {
              type: "button",
              class: "switch",
              role: "switch",
              "aria-checked": String(device[name]),
              "data-act": "switch",
              "data-on": name,
            },
            h("span", null, label),
            h("i", { "aria-hidden": "true" }),
          ),
        ),
      ),
      h(
        "div",
        { class: "actions" },
        act("Open the app", "open-app"),
        act("Away for 10 min", "away"),
        act("Delete the app", "delete", { danger: true }),
      ),
      h("h3", null, "Consent"),
      h("p", { class: "faint" }, consentOf(device)),
      h(
        "div",
        { class: "actions", role: "group", "aria-label": "The owner's answer" },
        CONSENT.filter(([answer]) => answer !== device.consent || asking(device)).map(
          ([answer, label]) => act(label, "consent", { on: answer, danger: answer === "deny" }),
        ),
      ),
      h("h3", null, "Activities"),
      activities.length
        ? h(
            "div",
            { class: "detail-activities" },
            activities.map((each) => activityOf(each, now)),
          )
        : h("p", { class: "faint" }, "None."),
      h("h3", null, "Tokens"),
      tokens(device),
      device.start_budget
        ? h(
            "p",
            { class: "faint" },
            `Push-to-start budget: ${device.start_budget.remaining} of ${device.start_budget.capacity} left.`,
          )
        : h("span"),
      h("h3", null, "Last pushes"),
      log(this.pushes),
    ];
  }
}

const asking = (device) => device.activities.some((each) => each.asks);

function consentOf(device) {
  const said = {
    none: "Not answered: a card that is started by push gets no update token.",
    allow: "Allow: each card gets its update token once its owner has seen it.",
    always: "Always Allow: update tokens come at once.",
    deny: "Don't Allow: nothing is shown.",
  }[device.consent];
  return asking(device) ? `${said} A card on the Lock Screen asks now.` : said;
}

function act(label, name, { on = null, danger = false } = {}) {
  return h(
    "button",
    {
      type: "button",
      class: danger ? "button small danger" : "button small",
      "data-act": name,
      "data-on": on,
    },
    label,
  );
}

function activityOf(activity, now) {
  const active = activity.state === "active";
  return h(
    "article",
    { class: "detail-activity", "data-key": activity.id, "data-look": lookOf(activity) },
    h(
      "header",
      null,
      h("h4", null, foreign(activity.attributes_type ?? "Type not known", "", 60)),
      h("span", { class: "state", "data-look": lookOf(activity) }, lookOf(activity)),
    ),
    activity.state === "dismissed"
      ? null
      : h(
          "div",
          { class: "presentations wallpaper-2" },
          h(
            "div",
            { class: "presentation" },
            h("p", null, "Lock Screen"),
            lockCard(activity, now, 16),
          ),
          active
            ? h(
                "div",
                { class: "presentation" },
                h("p", null, "Dynamic Island: compact, minimal, expanded"),
                h(
                  "div",
                  { class: "island-row" },
                  compactIsland(activity, now),
                  minimalIsland(activity, now),
                ),
                h("div", { class: "island-row" }, expandedIsland(activity, now, 4)),
              )
            : null,
        ),
    active ? budgetMeter(activity.budget, now) : null,
    facts([
      ["App", activity.bundle_id],
      ["Id", activity.id],
      [
        "Token",
        activity.token
          ? h("code", null, `${firstDigits(activity.token)}…`)
          : activity.asks
            ? "waits for consent"
            : activity.token_due
              ? when(activity.token_due, now)
              : "never issued",
      ],
      ["Channel", activity.channel],
      ["Started", when(activity.started_at, now)],
      ["Updated", when(activity.updated_at, now)],
      ["Stale date", when(activity.stale_date, now)],
      [
        "Ended",
        activity.ended_at === null
          ? null
          : h(
              "span",
              null,
              when(activity.ended_at, now),
              activity.ended_by ? `, ${ENDED_BY.get(activity.ended_by) ?? activity.ended_by}` : "",
            ),
      ],
      ["Dismissal", when(activity.dismissal_date, now)],
      ["System ends it", active ? when(activity.ends_at, now) : null],
      ["Relevance", activity.relevance_score],
      ["Next refresh", activity.pending ? "a newer state waits for it" : null],
      ["Updates", `${count(activity.updates)} shown, ${count(activity.ignored)} ignored`],
    ]),
    activity.state === "dismissed"
      ? null
      : h(
          "div",
          { class: "actions" },
          act("Swipe away", "dismiss", { on: activity.id }),
          active ? act("End", "end", { on: activity.id }) : null,
          active && activity.token
            ? act("Rotate token", "rotate-token", { on: activity.id })
            : null,
        ),
    h(
      "details",
      { class: "json" },
      h("summary", null, "Content state and attributes"),
      h(
        "pre",
        { tabindex: "0" },
        jsonText({ "content-state": activity.content_state, attributes: activity.attributes }),
      ),
    ),
  );
}

function tokens(device) {
  if (device.tokens.length === 0) return h("p", { class: "faint" }, "None.");
  return h(
    "ul",
    { class: "tokens" },
    device.tokens.slice(0, 60).map((each) =>
      h(
        "li",
        { "data-key": each.token },
        h("code", null, `${firstDigits(each.token)}…`),
        h(
          "span",
          { class: "token-kind" },
          { start: "push to start", activity: "activity", device: "device" }[each.kind] ??
            each.kind,
          each.attributes_type ? foreign(each.attributes_type, "faint", 60) : null,
        ),
        h(
          "span",
          { class: "state", "data-look": each.condition === "live" ? "active" : "closed" },
          each.told ? each.condition : "app not told",
        ),
        h(
          "button",
          {
            type: "button",
            class: "icon-button small",
            "data-copy": each.token,
            "aria-label": `Copy token ${firstDigits(each.token)}`,
            title: "Copy the whole token",
          },
          "⧉",
        ),
        each.condition === "live"
          ? h(
              "button",
              {
                type: "button",
                class: "icon-button small",
                "data-act": "kill",
                "data-token": each.token,
                "aria-label": `Unregister token ${firstDigits(each.token)}`,
                title: "Let it die: 410 Unregistered",
              },
              "×",
            )
          : h("span"),
      ),
    ),
  );
}

function log(pushes) {
  if (pushes === null) return h("p", { class: "faint" }, "Asking…");
  if (pushes.length === 0) return h("p", { class: "faint" }, "None.");
  return h(
    "ol",
    { class: "log" },
    pushes.map((push) => {
      const told = verdict(push);
      return h(
        "li",
        { "data-key": push.number },
        h(
          "button",
          { type: "button", class: "log-row", "data-open-push": push.number },
          h("i", { class: "dot", "data-kind": told.kind }),
          h(
            "span",
            { class: "log-what" },
            h("b", null, `#${push.number} ${eventOf(push)}`),
            h("span", { "data-kind": told.kind }, told.label),
            told.text ? foreign(told.text, "faint", 160) : null,
            detailOf(push) ? foreign(detailOf(push), "faint", 160) : null,
          ),
          h("time", null, timeOfDay(push.received_at)),
        ),
      );
    }),
  );
}
