// Runs before the first paint, so that a chosen theme does not flash. Not a module for that reason.
(() => {
  "use strict";
  let chosen = null;
  try {
    chosen = localStorage.getItem("apns-live-theme");
  } catch {
    // Storage may be switched off; the system's choice holds then.
  }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
