// Finds the first error of a JSON text and its line. Browsers word it each in their own way, and Safari gives no place.

const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[\da-fA-F]{4}))*"/y;
const SCALAR = /(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)(?![\w.+-])/y;
const SPACE = /[ \t\r\n]*/y;

class Found extends Error {}

/** The first error as `{line, at, says}`, with `at` its place in the text; null when there is none. */
export function problemOf(text) {
  try {
    JSON.parse(text);
    return null;
  } catch {
    // Where it is, the reader below finds out.
  }
  let at = 0;
  const take = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0] ?? "";
    at += found.length;
    return found;
  };
  const fail = (says) => {
    throw new Found(at >= text.length ? `the text ends here, and ${says}` : says);
  };
  const next = (letter) => {
    take(SPACE);
    if (text[at] !== letter) return false;
    at += 1;
    return true;
  };
  const members = (close, member) => {
    if (next(close)) return;
    do {
      take(SPACE);
      if (text[at] === close) fail("there is one comma too many before this bracket");
      member();
    } while (next(","));
    if (!next(close)) fail(`a comma or ${close} is missing before this`);
  };
  const value = () => {
    take(SPACE);
    if (next("{"))
      members("}", () => {
        if (!take(STRING)) fail("a name in double quotation marks is missing");
        if (!next(":")) fail("a colon is missing after the name");
        value();
      });
    else if (next("[")) members("]", value);
    else if (text[at] === '"') {
      if (!take(STRING)) fail("this text does not end, or holds a character that must be escaped");
    } else if (!take(SCALAR)) fail("a value is missing, or is not JSON");
  };
  let says = "this is not JSON";
  try {
    value();
    take(SPACE);
    if (at < text.length) fail("something follows after the end");
  } catch (error) {
    if (!(error instanceof Found)) throw error;
    says = error.message;
  }
  return { line: text.slice(0, at).split("\n").length, at, says };
}
