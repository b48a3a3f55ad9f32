/**
 * The reference of the API: draws openapi.json, and makes the calls that a reader tries.
 * Everything comes from this gateway. Texts are shown as texts, never as markup.
 */
import { curlOf, exampleOf, requestOf, typeOf } from "./reference-calls.js";

const MOST_SHOWN = 65_536;
const byId = (id) => document.getElementById(id);

/** An element with properties, and with children that are elements or texts. */
function el(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** A text with `words` between backticks as code. */
function prose(tag, text, className = "") {
  const parts = text.split("`").map((part, at) => (at % 2 ? el("code", { textContent: part }) : part));
  return el(tag, { className }, ...parts);
}

let spec = null;
let numbers = 0;

const resolved = (schema) =>
  schema?.$ref ? spec.components.schemas[schema.$ref.split("/").pop()] : schema;

/** What a schema holds, as nested lists. Objects below open when they are asked for. */
function shapeOf(schema) {
  const found = resolved(schema) ?? {};
  const required = new Set(found.required ?? []);
  const rows = Object.entries(found.properties ?? {}).map(([name, one]) => {
    const inner = [one, one.items, ...(one.anyOf ?? [])]
      .map(resolved)
      .find((each) => each?.properties);
    const said = `${typeOf(one, spec)}${required.has(name) ? ", required" : ""}`;
    const row = el("li", {}, el("code", { textContent: name }), ` ${said}`);
    if (one.description) row.append(" ", prose("span", one.description, "note"));
    if (inner) {
      const more = el("details", {}, el("summary", { textContent: `Fields of ${name}` }));
      more.addEventListener("toggle", () => more.childElementCount > 1 || more.append(shapeOf(inner)));
      row.append(more);
    }
    return row;
  });
  return el("ul", { className: "shape" }, ...rows);
}

/** A labelled input of a parameter. */
function fieldOf(parameter) {
  const schema = parameter.schema ?? {};
  const values = schema.enum ?? schema.anyOf?.find((one) => one.enum)?.enum;
  const choices = values ?? (schema.type === "boolean" ? ["true", "false"] : null);
  const id = `field-${(numbers += 1)}`;
  const input = choices
    ? el("select", { id }, ...["", ...choices].map((one) => el("option", { value: one, textContent: one })))
    : el("input", { id, required: parameter.required, autocomplete: "off", spellcheck: false });
  input.name = parameter.name;
  input.dataset.in = parameter.in;
  const note = [parameter.required ? "required" : "", typeOf(schema, spec), parameter.description ?? ""];
  const told = prose("p", note.filter(Boolean).join(", "), "note");
  told.id = `${id}-note`;
  input.setAttribute("aria-describedby", told.id);
  return el("div", {}, el("label", { htmlFor: id, textContent: `${parameter.name} (${parameter.in})` }), input, told);
}

/** The editor of the body, with its examples; null where a call has none. */
function bodyOf(operation) {
  const content = Object.entries(operation.requestBody?.content ?? {});
  if (!content.length) return null;
  const samples = content.flatMap(([media, one]) => {
    const given = Object.entries(one.examples ?? {}).map(([name, each]) => [name, each.value]);
    if (!given.length) given.push([media, one.example ?? exampleOf(one.schema, spec)]);
    return given.map(([name, value]) => ({
      media,
      name,
      text: typeof value === "string" ? value : JSON.stringify(value, null, 2),
    }));
  });
  const id = `field-${(numbers += 1)}`;
  const text = el("textarea", { id, name: "body", spellcheck: false });
  const pick = el("select", { id: `${id}-pick` }, ...samples.map((one) => el("option", { textContent: one.name })));
  const choose = () => {
    const chosen = samples[pick.selectedIndex];
    text.value = chosen.text;
    text.dataset.media = chosen.media;
    text.dispatchEvent(new Event("input", { bubbles: true }));
  };
  pick.addEventListener("change", choose);
  const problem = el("p", { className: "bad", role: "alert" });
  text.addEventListener("input", () => {
    problem.textContent = "";
    if (text.dataset.media !== "application/json" || !text.value.trim()) return;
    try {
      JSON.parse(text.value);
    } catch (error) {
      problem.textContent = `This is not JSON yet: ${error.message}`;
    }
  });
  choose();
  return el(
    "div",
    {},
    el("h3", { textContent: "Body" }),
    samples.length > 1 ? el("label", { htmlFor: pick.id, textContent: "Example" }) : null,
    samples.length > 1 ? pick : null,
    el("label", { htmlFor: id, textContent: "Text of the body" }),
    text,
    problem,
    shapeOf(content[0][1].schema),
  );
}

/** The form that makes a call, with the answer below it. */
function formOf(method, path, operation) {
  const fields = operation.parameters.map(fieldOf);
  const curl = el("pre", { tabIndex: 0 });
  const button = el("button", { type: "submit", textContent: "Send" });
  const stop = el("button", { type: "button", textContent: "Stop", disabled: true });
  const status = el("p", { role: "status" });
  const answer = el("pre", { hidden: true, tabIndex: 0 });
  answer.setAttribute("aria-label", "Answer");
  curl.setAttribute("aria-label", "The call as curl");
  const form = el(
    "form",
    { noValidate: false },
    fields.length ? el("h3", { textContent: "Parameters" }) : null,
    el("div", { className: "fields" }, ...fields),
    bodyOf(operation),
    el("div", { className: "send" }, button, stop, status),
    answer,
    el("details", {}, el("summary", { textContent: "As curl" }), curl),
  );
  const asked = () => requestOf(method, path, [...form.elements], byId("key").value.trim());
  const redraw = () => {
    curl.textContent = curlOf(asked(), new URL(".", document.baseURI).href);
  };
  form.addEventListener("input", redraw);
  redraw();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const control = new AbortController();
    stop.onclick = () => control.abort();
    [button.disabled, stop.disabled] = [true, false];
    status.className = "";
    status.textContent = "Sent";
    answer.hidden = false;
    answer.textContent = "";
    try {
      await show(asked(), control.signal, status, answer);
    } catch (error) {
      status.className = "bad";
      status.textContent = control.signal.aborted ? "Stopped" : `No answer: ${error.message}`;
    }
    [button.disabled, stop.disabled] = [false, true];
  });
  return form;
}

/** Make a call and show its answer; one without an end is shown as it comes. */
async function show(request, signal, status, answer) {
  const began = performance.now();
  const { url, ...options } = request;
  const said = await fetch(new URL(url, document.baseURI), { ...options, signal, credentials: "omit" });
  const took = Math.round(performance.now() - began);
  status.className = said.ok ? "good" : "bad";
  status.textContent = `${said.status} ${said.statusText} in ${took} ms`;
  const reader = said.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await reader?.read(); part && !part.done; part = await reader.read()) {
    text += part.value;
    answer.textContent = text.slice(0, MOST_SHOWN);
    if (text.length > MOST_SHOWN) await reader.cancel();
  }
  try {
    answer.textContent = JSON.stringify(JSON.parse(text), null, 2).slice(0, MOST_SHOWN);
  } catch {
    answer.textContent = text.slice(0, MOST_SHOWN) || "(no body)";
  }
}

/** What may come back: each status, and an example of the good one. */
function answersOf(operation) {
  const list = el("dl");
  for (const [code, one] of Object.entries(operation.responses)) {
    list.append(el("dt", { textContent: code }), prose("dd", one.description));
  }
  const good = Object.entries(operation.responses).find(([code]) => code.startsWith("2"))?.[1];
  const content = good?.content?.["application/json"];
  if (!content) return [el("h3", { textContent: "Answers" }), list];
  const example = Object.values(content.examples ?? {})[0]?.value ?? exampleOf(content.schema, spec);
  const shown = el("pre", { textContent: JSON.stringify(example, null, 2), tabIndex: 0 });
  shown.setAttribute("aria-label", "Example of an answer");
  return [el("h3", { textContent: "Answers" }), list, shown];
}

/** One call. What it holds is drawn when it is opened. */
function callOf(method, path, operation) {
  const head = el(
    "summary",
    {},
    el("span", { className: "method", textContent: method.toUpperCase() }),
    el("span", { className: "path", textContent: path }),
    el("span", { className: "summary", textContent: operation.summary }),
  );
  const call = el("details", { className: "call", id: operation.operationId }, head);
  call.dataset.words = `${method} ${path} ${operation.summary} ${operation.operationId}`.toLowerCase();
  call.addEventListener("toggle", () => {
    if (!call.open || call.childElementCount > 1) return;
    const said = operation.description.replace(/\n +/g, "\n");
    call.append(
      el("div", {}, prose("p", said), formOf(method, path, operation), ...answersOf(operation)),
    );
  });
  return call;
}

function draw() {
  byId("version").textContent = spec.info.version;
  byId("about").replaceChildren(prose("span", spec.info.description.replaceAll("\n", " ")));
  const groups = new Map();
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(callOf(method, path, operation));
    }
  }
  for (const [tag, calls] of groups) {
    const title = tag[0].toUpperCase() + tag.slice(1);
    byId("groups").append(el("section", {}, el("h2", { textContent: title }), ...calls));
  }
}

function find() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const section of byId("groups").children) {
    let some = false;
    for (const call of section.querySelectorAll(".call")) {
      call.hidden = !words.every((word) => call.dataset.words.includes(word));
      if (!call.hidden) [some, shown] = [true, shown + 1];
    }
    section.hidden = !some;
  }
  byId("count").textContent = shown ? `${shown} calls` : "No call has these words.";
}

/** Open the call that the address names. */
function follow() {
  const call = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!call?.classList.contains("call")) return;
  call.open = true;
  call.scrollIntoView();
}

byId("access").addEventListener("submit", (event) => event.preventDefault());
byId("search").addEventListener("input", find);
window.addEventListener("hashchange", follow);
try {
  const answer = await fetch("openapi.json", { credentials: "omit" });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  spec = await answer.json();
  draw();
  find();
  follow();
} catch (error) {
  byId("about").textContent = `The description cannot be read: ${error.message}. Load this page again.`;
}
