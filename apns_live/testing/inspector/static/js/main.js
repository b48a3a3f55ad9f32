// Puts the page together: one store, one event stream, at most one drawing per frame.

import { trying } from "./announce.js";
import { byId } from "./dom.js";
import { icon } from "./icons.js";
import { Calls } from "./calls.js";
import { ClockPanel } from "./clock.js";
import { Connections } from "./connections.js";
import { copy } from "./copy.js";
import { Detail } from "./detail.js";
import { Faults } from "./faults.js";
import { Gateway } from "./gateway.js";
import { Link } from "./link.js";
import { Phones } from "./phones.js";
import { Pushes } from "./pushes.js";
import { MOST_DEVICES, Store } from "./store.js";
import { Stream } from "./stream.js";
import { Summary } from "./summary.js";
import { tabs } from "./tabs.js";
import { tick } from "./ticking.js";

const store = new Store();
const stream = new Stream(`/v1/events?devices=${MOST_DEVICES}&pushes=200&payload=0`, store);
const gateway = new Gateway();
const open = (kind, subject) => detail.open(kind, subject);
const calls = new Calls(store, gateway, open);
const detail = new Detail(store, calls, onSelect);
const phones = new Phones(store, open);
const pushes = new Pushes(store, open);
const faults = new Faults(store);
const connections = new Connections(store);
const clock = new ClockPanel(store);
const summary = new Summary(store);
const link = new Link(store, () => stream.open());

const showTab = tabs(byId("tabs"), (name) => {
  if (name === "pushes") pushes.show();
  if (name === "connections") connections.show();
});

let drawing = false;
store.onChange = () => {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(draw);
};

function draw() {
  drawing = false;
  const changes = store.takeChanges();
  link.update(changes);
  if (changes.fake) drawFake();
  phones.update(changes);
  pushes.update(changes);
  connections.update(changes);
  faults.update(changes);
  if (changes.all) gateway.clear();
  if (changes.calls || changes.pushes) calls.draw();
  if (changes.counts) {
    summary.draw();
    clock.draw();
  }
  detail.update(changes);
  if (changes.all) openLinked();
}

function drawFake() {
  const { fake } = store;
  byId("environment").textContent = fake.environment;
  const endpoint = byId("endpoint");
  endpoint.hidden = false;
  endpoint.firstElementChild.textContent = fake.endpoint;
  endpoint.setAttribute("aria-label", `Copy the endpoint ${fake.endpoint}`);
}

function onSelect(kind, subject, from = null) {
  phones.select(kind === "phone" ? subject : null);
  pushes.select(kind === "push" ? subject : null);
  calls.select(kind === "call" ? subject : null);
  const link = kind === null ? "" : `#/${kind}/${encodeURIComponent(subject)}`;
  if (location.hash.startsWith("#/") || link)
    history.replaceState(null, "", link || location.pathname);
  if (kind !== null || !from) return;
  if (from.kind === "call") return void calls.list.querySelector(`[data-call="${from.subject}"]`)?.focus();
  const list = from.kind === "phone" ? phones.list : pushes.list;
  if (list.places.has(from.subject)) list.moveTo(from.subject, true);
  else byId("phones").focus();
}

/** Open what the address names: `#/push/12`, `#/phone/anna` or `#/call/3`. */
function openLinked() {
  const [, kind, name] = /^#\/(push|phone|call)\/(.+)$/.exec(location.hash) ?? [];
  if (!kind || (kind === "call" && !gateway.setup)) return;
  const subject = kind === "phone" ? decodeURIComponent(name) : Number(name);
  if (detail.kind === kind && detail.subject === subject && detail.page) return;
  open(kind, subject);
}
addEventListener("hashchange", openLinked);

gateway.onChange = () => {
  store.changes.calls = true;
  store.onChange();
};

trying(async () => {
  if (!(await gateway.open())) return;
  byId("tab-calls").hidden = false;
  calls.build();
  showTab("calls");
  openLinked();
});

setInterval(() => {
  if (gateway.setup && store.link.state === "live") gateway.read().catch(() => {});
  clock.draw();
  summary.second();
  phones.second();
  detail.second();
  tick(document.body, store.now());
}, 1000);

byId("endpoint").append(icon("copy"));
byId("endpoint").addEventListener("click", () => copy(store.fake.endpoint));

const themeButton = byId("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () =>
  (document.documentElement.dataset.theme ?? (systemDark.matches ? "dark" : "light")) === "dark";
const drawTheme = () => themeButton.replaceChildren(icon(isDark() ? "sun" : "moon"));
themeButton.addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("apns-live-theme", theme);
  } catch {
    // The choice then lasts as long as the page.
  }
  drawTheme();
});
systemDark.addEventListener("change", drawTheme);
drawTheme();

const legend = document.querySelector(".legend");
document.addEventListener("click", (event) => {
  if (!legend.contains(event.target)) legend.open = false;
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape") {
    legend.open = false;
    if (typing?.type === "search" && typing.value !== "") {
      typing.value = "";
      typing.dispatchEvent(new Event("input"));
    } else detail.close();
  }
  if (event.key === "/" && !typing) {
    event.preventDefault();
    phones.focusSearch();
  }
});

stream.open();
