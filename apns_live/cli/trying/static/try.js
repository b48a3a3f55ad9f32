// Asks for the state once a second and draws what changed. Whatever came over the wire is text.

const $ = (id) => document.getElementById(id);
let chosen = { vendor: "native", step: "start" };
let samples = {};
const drawn = new Map();

function make(tag, words = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(words)) {
    if (name === "class") element.className = value;
    else if (name.startsWith("data-") || name.startsWith("aria-") || name === "role")
      element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...inside.filter((one) => one !== null && one !== undefined));
  return element;
}

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

function drawMaking() {
  const vendors = Object.entries(samples).map(([id, vendor]) =>
    make("button", {
      type: "button",
      textContent: vendor.name,
      role: "tab",
      "aria-selected": String(id === chosen.vendor),
      onclick: () => choose(id, "start"),
    }),
  );
  $("vendors").replaceChildren(...vendors);
  const sample = samples[chosen.vendor];
  if (!sample) return;
  const steps = Object.keys(sample.steps).map((step) =>
    make("button", {
      type: "button",
      textContent: step,
      "aria-pressed": String(step === chosen.step),
      onclick: () => choose(chosen.vendor, step),
    }),
  );
  $("steps").replaceChildren(...steps);
  drawSample();
}

function drawSample() {
  const one = samples[chosen.vendor]?.steps[chosen.step];
  if (!one) return;
  const line = `${one.method} ${one.path}`;
  if ($("line").textContent !== line) $("line").textContent = line;
  const body = text(one.body);
  if ($("body").textContent !== body) $("body").textContent = body;
}

function choose(vendor, step) {
  chosen = { vendor, step };
  drawMaking();
}

async function send() {
  $("send").disabled = true;
  try {
    const answer = await fetch("/try/send", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(chosen),
    });
    const order = ["start", "update", "end"];
    const said = await answer.json();
    if (said.status < 300) {
      choose(chosen.vendor, order[(order.indexOf(chosen.step) + 1) % order.length]);
    }
    await refresh();
  } catch {
    link("lost");
  } finally {
    $("send").disabled = false;
  }
}

function drawPush(push) {
  const became = push.became;
  const good = push.status === 200 && (!became || ["delivered", "delivered from storage"].includes(became.state));
  const words = push.status !== 200
    ? push.reason || "no answer"
    : became
      ? [became.state, became.why].filter(Boolean).join(": ")
      : "accepted";
  return make(
    "div",
    { class: "push", role: "listitem" },
    make("span", { textContent: push.device ?? "channel" }),
    make("span", { class: "status", "data-good": String(push.status === 200), textContent: String(push.status || "–") }),
    make("span", { class: "id mono", textContent: push.apns_id, title: push.apns_id }),
    make("span", { class: "became", "data-good": String(good), textContent: words }),
  );
}

function drawOperation(operation) {
  const counts = [`${operation.kind}: ${operation.status}`];
  if (operation.queued) counts.push(`${operation.queued} wait for a token`);
  if (!operation.pushes.length) counts.push("no push yet");
  return make(
    "div",
    { class: "operation" },
    make("p", { textContent: counts.join(", ") }),
    make("div", { class: "pushes", role: "list" }, ...operation.pushes.map(drawPush)),
  );
}

function drawCall(call, open) {
  const details = make(
    "details",
    { open },
    make("summary", { textContent: "Request and answer" }),
    make("pre", { class: "mono", textContent: text(call.request) }),
    make("pre", { class: "mono", textContent: text(call.response) }),
  );
  return make(
    "li",
    { class: "call", "data-number": String(call.number) },
    make(
      "div",
      { class: "call-head" },
      make("span", { class: "vendor", textContent: call.vendor }),
      make("span", { class: "path mono", textContent: `${call.method} ${call.path}` }),
      make("span", {
        class: "status",
        "data-good": String(call.status >= 200 && call.status < 300),
        textContent: String(call.status || "…"),
      }),
      make("span", { class: "time", textContent: new Date(call.at * 1000).toLocaleTimeString() }),
    ),
    ...call.operations.map(drawOperation),
    details,
  );
}

function drawCalls(calls) {
  $("nothing").hidden = calls.length > 0;
  const list = $("calls");
  const rows = calls.map((call) => {
    const key = JSON.stringify(call);
    const known = drawn.get(call.number);
    if (known && known.key === key) return known.row;
    const open = known ? known.row.querySelector("details").open : false;
    const row = drawCall(call, open);
    drawn.set(call.number, { key, row });
    return row;
  });
  const same = rows.length === list.children.length && rows.every((row, n) => row === list.children[n]);
  if (!same) list.replaceChildren(...rows);
}

function share(state) {
  if (typeof state.progress === "number") return state.progress;
  if (typeof state.percentage === "number") return state.percentage / 100;
  if (typeof state.current_step === "number" && state.number_of_steps > 0)
    return state.current_step / state.number_of_steps;
  return null;
}

function drawCard(activity) {
  const state = activity.content_state ?? {};
  const known = ["title", "subtitle", "status", "progress", "percentage", "type", "onesignal"];
  const done = share(state);
  const rest = Object.entries(state).filter(([name]) => !known.includes(name)).slice(0, 6);
  return make(
    "div",
    { class: "card", "data-state": activity.state },
    make(
      "div",
      { class: "title" },
      make("span", { textContent: text(state.title ?? activity.attributes_type ?? "Activity") }),
      make("small", { textContent: activity.state }),
    ),
    make("div", { class: "sub", textContent: text(state.subtitle ?? state.status ?? "") }),
    done === null ? null : make("progress", { max: 1, value: done, "aria-label": "progress" }),
    done === null && rest.length
      ? make("dl", {}, ...rest.flatMap(([name, value]) => [
          make("dt", { textContent: name }),
          make("dd", { textContent: text(value) }),
        ]))
      : null,
  );
}

function drawPhones(phones) {
  const key = JSON.stringify(phones.map((phone) => [phone.id, phone.activities]));
  if (drawn.get("phones") === key) return;
  drawn.set("phones", key);
  $("phones").replaceChildren(
    ...phones.map((phone) => {
      const cards = phone.activities.filter((one) => one.state !== "dismissed").slice(-3).reverse();
      return make(
        "article",
        { class: "phone", "data-phone": phone.id },
        make("div", { class: "name", textContent: phone.id }),
        ...(cards.length
          ? cards.map(drawCard)
          : [make("div", { class: "empty", textContent: "nothing on the Lock Screen" })]),
      );
    }),
  );
}

function link(state) {
  $("link").dataset.state = state;
  $("link").textContent = { live: "live", lost: "the gateway is gone", waiting: "connecting" }[state];
}

async function refresh() {
  const answer = await fetch("/try/state");
  const state = await answer.json();
  if (!state.ready) return;
  const first = !Object.keys(samples).length;
  samples = state.samples;
  if (first) drawMaking();
  else drawSample();
  drawCalls(state.calls);
  drawPhones(state.phones);
  $("inspector").href = state.inspector;
  $("inspector").hidden = false;
  link("live");
}

async function follow() {
  try {
    await refresh();
  } catch {
    link("lost");
  }
  setTimeout(follow, 800);
}

$("send").addEventListener("click", send);
follow();
