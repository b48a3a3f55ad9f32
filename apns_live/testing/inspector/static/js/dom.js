// Building and patching nodes. What a sender sent goes through text nodes only, never through markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "circle", "rect", "polyline", "g"]);

/** Make an element. `props`: attributes, `class`, `style` (an object), `on` (listeners by event). */
export function h(tag, props, ...children) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") {
      // Through the CSSOM: the content security policy forbids style attributes in markup.
      for (const [property, setting] of Object.entries(value))
        node.style.setProperty(property, setting);
    } else if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(node, child);
    else node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Text of unknown origin: isolated, so that its bidi controls end with it, and cut when too long. */
export function foreign(text, className, limit = 400) {
  const whole = String(text);
  const shown = whole.length > limit ? `${whole.slice(0, limit)}…` : whole;
  return h(
    "bdi",
    { class: className, title: whole.length > 40 ? whole.slice(0, 1000) : null },
    shown,
  );
}

/** Change `old` into `next` where they are alike, so that focus, scrolling and transitions survive. */
export function morph(old, next) {
  if (old.nodeType === Node.TEXT_NODE && next.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return old;
  }
  if (old.nodeName !== next.nodeName || keyOf(old) !== keyOf(next)) {
    old.replaceWith(next);
    return next;
  }
  for (const name of old.getAttributeNames()) {
    // Whether a <details> is open is the reader's business.
    if (name !== "style" && name !== "open" && !next.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const name of next.getAttributeNames()) {
    const value = next.getAttribute(name);
    if (name !== "style" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.style && old.style.cssText !== next.style.cssText) old.style.cssText = next.style.cssText;
  morphChildren(old, [...next.childNodes]);
  return old;
}

/** Make the children of `parent` like `wanted`, an array of nodes. */
export function morphChildren(parent, wanted) {
  const had = [...parent.childNodes];
  wanted.forEach((node, index) => {
    if (index < had.length) morph(had[index], node);
    else parent.append(node);
  });
  for (const extra of had.slice(wanted.length)) extra.remove();
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;
}

/** The value of a key that the object itself has. `__proto__` and its like are ordinary names here. */
export function own(object, name) {
  return isObject(object) && Object.hasOwn(object, name) ? object[name] : undefined;
}

export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export const byId = (id) => document.getElementById(id);
