// Line icons on a grid of 24, drawn here. SF Symbols may not be shipped, so a symbol's name is matched by its first word.

import { h } from "./dom.js";

const PATHS = new Map([
  ["bolt", "M13 3 5 14h6l-1 7 9-12h-6z"],
  ["timer", "M12 8v5l3 2M9 2h6M12 5a8 8 0 1 0 0 16 8 8 0 0 0 0-16"],
  ["clock", "M12 7v5l3 2M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18"],
  ["checkmark", "m5 13 4.5 4.5L19 7"],
  ["xmark", "M6 6l12 12M18 6 6 18"],
  ["exclamationmark", "M12 4 3 19.5h18zM12 10v4M12 16.8v.2"],
  ["car", "M4 16v-4l2-5h12l2 5v4zM4 16v2M20 16v2M7.5 13h.01M16.5 13h.01M4 12h16"],
  ["shippingbox", "m12 3 8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9"],
  ["cart", "M3 4h2l2.5 11h10L20 7H6M9 19.5h.01M16 19.5h.01"],
  ["bag", "M5 8h14l1 12H4zM9 8V6a3 3 0 0 1 6 0v2"],
  [
    "airplane",
    "M10.3 9.5V5a1.7 1.7 0 0 1 3.4 0v4.5l7.3 4.3v2l-7.3-2.2v4l2.3 1.9v1.5l-4-1.2-4 1.2v-1.5l2.3-1.9v-4L3 15.8v-2z",
  ],
  ["figure", "M13 4.5h.01M12 8l-3 4 4 2-1 6M12 8l3 3 3 .5M9 12l-1 4-3 2M12 8 8 8.5"],
  ["heart", "M12 20 4.5 12.5a4.8 4.8 0 0 1 7.5-6 4.8 4.8 0 0 1 7.5 6z"],
  ["star", "m12 4 2.5 5.3 5.5.7-4 4 1 5.7-5-2.8-5 2.8 1-5.7-4-4 5.5-.7z"],
  ["flame", "M12 3c1 4 5 5.5 5 10a5 5 0 0 1-10 0c0-2 1-3 2-4 .5 1.5 1 2 2 2 0-3-.5-5 1-8"],
  ["bell", "M6 16V11a6 6 0 0 1 12 0v5l1.5 2h-15zM10 21h4"],
  [
    "gear",
    "M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6M12 3v3M12 18v3M3 12h3M18 12h3M5.6 5.6l2.2 2.2M16.2 16.2l2.2 2.2M18.4 5.6l-2.2 2.2M7.8 16.2l-2.2 2.2",
  ],
  ["chart", "M5 20V11M12 20V4M19 20v-6"],
  ["cloud", "M7 18a4 4 0 0 1 0-8 5.5 5.5 0 0 1 10.5 1.5A3.3 3.3 0 0 1 17 18z"],
  ["person", "M12 4a4 4 0 1 0 0 8 4 4 0 0 0 0-8M4.5 20a7.5 7.5 0 0 1 15 0"],
  ["house", "m4 11 8-7 8 7v9h-5v-6H9v6H4z"],
  ["fork", "M7 3v6a2 2 0 0 0 4 0V3M9 11v10M16 3c-2 3-2 7 0 9v9"],
  ["arrow", "M5 12h14M13 6l6 6-6 6"],
  ["server", "M4 5h16v6H4zM4 13h16v6H4zM8 8h.01M8 16h.01"],
  ["sportscourt", "M3 6h18v12H3zM12 6v12M12 9.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5"],
  ["trophy", "M8 4h8v6a4 4 0 0 1-8 0zM8 6H5c0 3 1 4 3 4.5M16 6h3c0 3-1 4-3 4.5M12 14v4M8 20h8"],
  [
    "sun",
    "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.5 1.5M17.5 17.5 19 19M19 5l-1.5 1.5M6.5 17.5 5 19",
  ],
  ["moon", "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z"],
  ["copy", "M9 9h11v11H9zM15 9V4H4v11h5"],
  ["torch", "M8 3h8v3l-2 3v11h-4V9L8 6zM12 12v2"],
  ["camera", "M4 8h4l1.5-2h5L16 8h4v11H4zM12 10.5a3 3 0 1 0 0 6 3 3 0 0 0 0-6"],
  ["alert", "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M12 7.5v5.5M12 16.3v.2"],
  ["iphone", "M8 2.5h8v19H8zM11 19h2"],
  ["wifi", "M3 9a13 13 0 0 1 18 0M6 12.5a8.5 8.5 0 0 1 12 0M9 16a4 4 0 0 1 6 0M12 19.5h.01"],
]);

const ALSO = new Map([
  ["stopwatch", "timer"],
  ["hourglass", "timer"],
  ["alarm", "clock"],
  ["box", "shippingbox"],
  ["truck", "car"],
  ["bus", "car"],
  ["tram", "car"],
  ["bicycle", "figure"],
  ["basket", "bag"],
  ["takeoutbag", "bag"],
  ["gearshape", "gear"],
  ["wrench", "gear"],
  ["hammer", "gear"],
  ["football", "sportscourt"],
  ["soccerball", "sportscourt"],
  ["basketball", "sportscourt"],
  ["baseball", "sportscourt"],
  ["tennis", "sportscourt"],
  ["medal", "trophy"],
  ["play", "arrow"],
  ["cup", "fork"],
  ["building", "house"],
  ["cpu", "server"],
  ["externaldrive", "server"],
  ["phone", "iphone"],
  ["antenna", "wifi"],
  ["percent", "chart"],
  ["gauge", "chart"],
  ["speedometer", "chart"],
  ["waveform", "chart"],
]);

export function icon(name, className = "icon") {
  return h(
    "svg",
    { class: className, viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    h("path", { d: PATHS.get(name) ?? "" }),
  );
}

/** The icon of an SF Symbol's name, or null when there is none like it. */
export function symbol(name) {
  const first = String(name).slice(0, 80).toLowerCase().split(".")[0];
  const found = ALSO.get(first) ?? first;
  return PATHS.has(found) ? icon(found) : null;
}
