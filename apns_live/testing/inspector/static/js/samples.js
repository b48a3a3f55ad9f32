// The example calls of each API, and a call as a command or as code.

const WORD = /\{(app|segment|activity|type|attributes|state)\}/g;

/** Fill an example with values by name; a value that stands alone keeps its type. */
export function filled(part, values) {
  if (Array.isArray(part)) return part.map((each) => filled(each, values));
  if (typeof part === "object" && part !== null)
    return Object.fromEntries(
      Object.entries(part).map(([name, each]) => [name, filled(each, values)]),
    );
  if (typeof part !== "string") return part;
  const alone = part.match(/^\{(\w+)\}$/)?.[1];
  if (alone && Object.hasOwn(values, alone)) return values[alone];
  return part.replace(WORD, (whole, name) =>
    typeof values[name] === "string" ? values[name] : whole,
  );
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const schemeOf = (api) => api.scheme ?? "Bearer";

/** The call for a shell. The key is a variable: the page has none. */
export function asCurl({ url, api, method, path, body }) {
  const lines = [
    `curl -X ${method} ${quoted(url + path)}`,
    `-H "Authorization: ${schemeOf(api)} $APNS_LIVE_KEY"`,
  ];
  if (body.trim() !== "") lines.push('-H "Content-Type: application/json"', `-d ${quoted(body)}`);
  return `${lines.join(" \\\n  ")}\n`;
}

/** The call for Node: with the vendor's SDK where it has one, else with fetch. */
export function asNode({ url, api, step, method, path, body }) {
  const shown = body.trim() === "" ? "{}" : JSON.stringify(JSON.parse(body), null, 2);
  if (!api.node || !step) {
    const sent = body.trim() === "" ? "" : `\n  body: JSON.stringify(${indented(shown)}),`;
    return `const answer = await fetch(${JSON.stringify(url + path)}, {
  method: ${JSON.stringify(method)},
  headers: {
    authorization: \`${schemeOf(api)} \${process.env.APNS_LIVE_KEY}\`,
    "content-type": "application/json",
  },${sent}
});
console.log(answer.status, await answer.text());
`;
  }
  const parts = path.split("?")[0].split("/");
  const code = [...api.node.setup, api.node[step], "console.log(answer);", ""].join("\n");
  return code.replace(/\{(url|body|\d)\}/g, (_, name) =>
    name === "url"
      ? JSON.stringify(url)
      : name === "body"
        ? shown
        : JSON.stringify(decodeURIComponent(parts[Number(name)] ?? "")),
  );
}

const indented = (text) => text.replaceAll("\n", "\n  ");
