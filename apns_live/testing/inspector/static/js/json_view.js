// JSON as text, for reading: bounded, and with what cannot be seen made visible.

const DEPTH = 24;
const LENGTH = 24_000;
// Bidi controls, zero-width characters and other controls are shown by their numbers.
const INVISIBLE =
  /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const escaped = (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;

export const visible = (text) => String(text).replace(INVISIBLE, escaped);

export function jsonText(value) {
  const parts = [];
  let length = 0;
  const put = (text) => {
    length += text.length;
    parts.push(text);
  };
  const write = (node, depth) => {
    if (length > LENGTH) return;
    if (node === null || typeof node !== "object") {
      put(visible(JSON.stringify(node)));
      return;
    }
    const list = Array.isArray(node);
    const entries = Object.entries(node);
    if (entries.length === 0) put(list ? "[]" : "{}");
    else if (depth >= DEPTH) put(list ? "[ … ]" : "{ … }");
    else {
      put(list ? "[\n" : "{\n");
      entries.forEach(([name, each], index) => {
        if (length > LENGTH) return;
        put("  ".repeat(depth + 1));
        if (!list) put(`${visible(JSON.stringify(name))}: `);
        write(each, depth + 1);
        put(index + 1 < entries.length ? ",\n" : "\n");
      });
      put("  ".repeat(depth) + (list ? "]" : "}"));
    }
  };
  write(value, 0);
  return length > LENGTH ? `${parts.join("").slice(0, LENGTH)}\n…` : parts.join("");
}
