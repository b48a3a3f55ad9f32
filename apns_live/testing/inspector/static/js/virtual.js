// A list that only draws what can be seen: a grid that scrolls down, or a row that scrolls sideways.

import { morph } from "./dom.js";

const BEYOND = 1;

export class VirtualList {
  /**
   * `viewport` scrolls, `canvas` holds the items. `size()` returns `{width, height, gap, sideways, columns}`
   * with `width` the least width of an item. `draw(key, index, total)` returns an item's node.
   */
  constructor({ viewport, canvas, size, draw, onScroll = () => {} }) {
    Object.assign(this, { viewport, canvas, size, draw });
    this.keys = [];
    this.places = new Map();
    this.nodes = new Map();
    this.current = null;
    this.waiting = false;
    viewport.addEventListener(
      "scroll",
      () => {
        onScroll();
        this.later();
      },
      { passive: true },
    );
    new ResizeObserver(() => this.later()).observe(viewport);
  }

  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.layout();
    });
  }

  setKeys(keys) {
    this.keys = keys;
    this.places = new Map(keys.map((key, index) => [key, index]));
    if (!this.places.has(this.current)) this.current = keys[0] ?? null;
    this.layout(true);
  }

  /** Draw the seen ones among `keys` again; all of them when it is null. */
  refresh(keys = null) {
    for (const [key, node] of this.nodes) {
      if (keys === null || keys.has(key)) this.replace(key, node);
    }
  }

  replace(key, node) {
    const place = this.places.get(key);
    if (place === undefined) return;
    this.nodes.set(key, this.put(morph(node, this.make(key, place)), place));
  }

  make(key, place) {
    return this.put(this.draw(key, place, this.keys.length), place);
  }

  put(node, place) {
    const { x, y, width, height } = this.box(place);
    node.style.setProperty("transform", `translate(${x}px, ${y}px)`);
    node.style.setProperty("width", `${width}px`);
    node.style.setProperty("height", `${height}px`);
    return node;
  }

  box(place) {
    const { size, columns, cell } = this.grid;
    const column = size.sideways ? place : place % columns;
    const row = size.sideways ? 0 : Math.floor(place / columns);
    return {
      x: column * (cell + size.gap),
      y: row * (size.height + size.gap),
      width: cell,
      height: size.height,
    };
  }

  measure() {
    const size = this.size();
    const wide = this.canvas.clientWidth || this.viewport.clientWidth;
    const columns = size.sideways
      ? this.keys.length
      : (size.columns ?? Math.max(1, Math.floor((wide + size.gap) / (size.width + size.gap))));
    const cell = size.sideways ? size.width : (wide - size.gap * (columns - 1)) / columns;
    this.grid = { size, columns, cell };
    const rows = size.sideways ? Math.min(1, this.keys.length) : Math.ceil(this.keys.length / columns);
    const tall = Math.max(0, rows * (size.height + size.gap) - size.gap);
    this.canvas.style.setProperty("height", `${tall}px`);
    const length = this.keys.length * (cell + size.gap) - size.gap;
    this.canvas.style.setProperty(
      "min-width",
      size.sideways && this.keys.length ? `${length}px` : "0",
    );
    const shape = `${columns}/${cell}/${size.sideways}`;
    const moved = shape !== this.shape;
    this.shape = shape;
    return moved;
  }

  /** The places that can be seen, first and past the last. */
  seen() {
    const { size, columns, cell } = this.grid;
    const total = this.keys.length;
    if (size.sideways) {
      const step = cell + size.gap;
      const first = Math.floor(this.viewport.scrollLeft / step) - BEYOND;
      const last =
        Math.ceil((this.viewport.scrollLeft + this.viewport.clientWidth) / step) + BEYOND;
      return [Math.max(0, first), Math.min(total, last)];
    }
    const step = size.height + size.gap;
    const first = Math.floor(this.viewport.scrollTop / step) - BEYOND;
    const last = Math.ceil((this.viewport.scrollTop + this.viewport.clientHeight) / step) + BEYOND;
    return [Math.max(0, first * columns), Math.min(total, last * columns)];
  }

  layout(again = false) {
    const moved = this.measure() || again;
    const [first, last] = this.seen();
    const wanted = new Set(this.keys.slice(first, last));
    // The one that has the focus stays, or the keyboard would lose its place while scrolling.
    if (
      this.current !== null &&
      this.places.has(this.current) &&
      this.nodes.get(this.current)?.contains(document.activeElement)
    )
      wanted.add(this.current);
    for (const [key, node] of this.nodes) {
      if (!wanted.has(key)) {
        node.remove();
        this.nodes.delete(key);
      }
    }
    for (const key of wanted) {
      const node = this.nodes.get(key);
      if (node === undefined) {
        this.nodes.set(key, this.make(key, this.places.get(key)));
      } else if (moved) this.replace(key, node);
    }
    this.order();
    if (this.current !== null && !this.nodes.has(this.current)) this.offerAnother();
  }

  /** Keep the document in the order of the list, for those who hear it. What is in place is not moved. */
  order() {
    const keys = [...this.nodes.keys()].sort((a, b) => this.places.get(b) - this.places.get(a));
    let next = null;
    for (const key of keys) {
      const node = this.nodes.get(key);
      if (node.parentNode !== this.canvas || node.nextSibling !== next)
        this.canvas.insertBefore(node, next);
      next = node;
    }
  }

  /** Something that can be seen must be reachable with Tab. */
  offerAnother() {
    const [nearest] = this.nodes.keys();
    if (nearest === undefined) return;
    this.current = nearest;
    this.refresh(new Set([nearest]));
  }

  /** Make `key` the one that Tab reaches, bring it into view, and focus it when asked. */
  moveTo(key, focus) {
    const place = this.places.get(key);
    if (place === undefined) return;
    const before = this.current;
    this.current = key;
    const { x, y, width, height } = this.box(place);
    if (focus) {
      if (this.grid.size.sideways)
        reveal(this.viewport, "scrollLeft", x, width, this.viewport.clientWidth);
      else reveal(this.viewport, "scrollTop", y, height, this.viewport.clientHeight);
      this.layout();
    }
    this.refresh(new Set([before, key]));
    if (focus) this.nodes.get(key)?.focus({ preventScroll: true });
  }

  /** Answer the keys that move in a list; returns whether the key was one of them. */
  key(event) {
    const place = this.places.get(this.current) ?? 0;
    const row = this.grid.size.sideways ? 1 : this.grid.columns;
    const page =
      row *
      Math.max(
        1,
        Math.floor(this.viewport.clientHeight / (this.grid.size.height + this.grid.size.gap)),
      );
    const steps = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: row,
      ArrowUp: -row,
      PageDown: page,
      PageUp: -page,
      Home: -place,
      End: this.keys.length,
    };
    if (!Object.hasOwn(steps, event.key) || !this.keys.length) return false;
    const target = Math.min(this.keys.length - 1, Math.max(0, place + steps[event.key]));
    event.preventDefault();
    this.moveTo(this.keys[target], true);
    return true;
  }
}

function reveal(viewport, property, start, length, room) {
  const margin = 16;
  if (start - margin < viewport[property]) viewport[property] = Math.max(0, start - margin);
  else if (start + length + margin > viewport[property] + room)
    viewport[property] = start + length + margin - room;
}
