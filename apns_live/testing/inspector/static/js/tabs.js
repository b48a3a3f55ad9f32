// Tabs with the keys that people expect of them.

export function tabs(list, onChange) {
  const all = [...list.querySelectorAll("[role=tab]")];
  const choose = (tab, focus) => {
    for (const each of all) {
      const chosen = each === tab;
      each.setAttribute("aria-selected", String(chosen));
      each.tabIndex = chosen ? 0 : -1;
      document.getElementById(each.getAttribute("aria-controls")).hidden = !chosen;
    }
    if (focus) tab.focus();
    onChange(tab.id.replace("tab-", ""));
  };
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) choose(tab, false);
  });
  list.addEventListener("keydown", (event) => {
    const seen = all.filter((each) => !each.hidden);
    const place = seen.indexOf(document.activeElement);
    const targets = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: seen.length - 1 };
    if (place < 0 || !Object.hasOwn(targets, event.key)) return;
    event.preventDefault();
    choose(seen[(targets[event.key] + seen.length) % seen.length], true);
  });
  return (name) =>
    choose(
      all.find((each) => each.id === `tab-${name}`),
      false,
    );
}
