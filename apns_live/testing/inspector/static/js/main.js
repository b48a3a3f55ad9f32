// Puts the page together: one store, one event stream, at most one drawing per frame.

import { byId } from "./dom.js";
import { icon } from "./icons.js";
import { ClockPanel } from "./clock.js";
import { Connections } from "./connections.js";
import { copy, Detail } from "./detail.js";
import { Faults } from "./faults.js";
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
const detail = new Detail(store, onSelect);
const open = (kind, subject) => detail.open(kind, subject);
const phones = new Phones(store, open);
const pushes = new Pushes(store, open);
const faults = new Faults(store);
const connections = new Connections(store);
const clock = new ClockPanel(store);
const summary = new Summary(store);
const link = new Link(store, () => stream.open());

tabs(byId("tabs"), (name) => {
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
  if (changes.counts) {
    summary.draw();
    clock.draw();
  }
  detail.update(changes);
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
  if (kind !== null || !from) return;
  const list = from.kind === "phone" ? phones.list : pushes.list;
  if (list.places.has(from.subject)) list.moveTo(from.subject, true);
  else byId("phones").focus();
}

setInterval(() => {
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

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape") {
    if (typing?.id === "search" && typing.value !== "") {
      typing.value = "";
      phones.filter();
    } else detail.close();
  }
  if (event.key === "/" && !typing) {
    event.preventDefault();
    phones.focusSearch();
  }
});

stream.open();
