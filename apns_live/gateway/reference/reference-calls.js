/** What a schema means and what a form asks for. Nothing here touches the page. */

const resolved = (schema, spec) =>
  schema?.$ref ? spec.components.schemas[schema.$ref.split("/").pop()] : (schema ?? {});

const NAMES = { array: "list", string: "text", integer: "whole number", boolean: "true or false" };

/** A schema's type in words, such as "text, at most 255 characters". */
export function typeOf(schema, spec) {
  const found = resolved(schema, spec);
  if (found.enum) return found.enum.map(String).join(" or ");
  if (found.anyOf) {
    const kinds = found.anyOf.filter((one) => one.type !== "null").map((one) => typeOf(one, spec));
    return [...new Set(kinds)].join(" or ");
  }
  let said = NAMES[found.type] ?? found.type ?? "any value";
  if (found.type === "array" && found.items) said = `list of ${typeOf(found.items, spec)}`;
  if (found.format === "date-time") said = "ISO 8601 time";
  const low = found.minimum ?? found.exclusiveMinimum;
  if (low !== undefined) said += `, from ${low}`;
  if (found.maximum !== undefined && found.maximum < 2 ** 53) said += ` to ${found.maximum}`;
  if (found.maxLength !== undefined) said += `, at most ${found.maxLength} characters`;
  return said;
}

/** A value that fits a schema: its required fields, as small as they may be. */
export function exampleOf(schema, spec, depth = 0) {
  const found = resolved(schema, spec);
  if (found.examples?.length) return found.examples[0];
  if (found.enum) return found.enum[0];
  if (found.anyOf) return exampleOf(found.anyOf[0], spec, depth);
  if (found.type === "array") return found.minItems && depth < 6 ? [exampleOf(found.items, spec, depth + 1)] : [];
  if (found.type === "object") {
    const needed = depth < 6 ? (found.required ?? []) : [];
    return Object.fromEntries(
      needed.map((name) => [name, exampleOf(found.properties[name], spec, depth + 1)]),
    );
  }
  if (found.default !== undefined) return found.default;
  return { string: "text", integer: found.minimum ?? 1, number: found.minimum ?? 1, boolean: true }[found.type] ?? null;
}

/** What fetch is asked for, by the inputs of a form. Empty ones are left out. */
export function requestOf(method, path, inputs, key) {
  const headers = {};
  const query = new URLSearchParams();
  let url = path.slice(1);
  let body;
  for (const input of inputs) {
    if (input.name === "body") {
      body = input.value;
      headers["Content-Type"] = input.dataset.media;
    } else if (input.dataset.in === "path") {
      url = url.replace(`{${input.name}}`, () => encodeURIComponent(input.value) || `{${input.name}}`);
    } else if (input.value !== "" && input.dataset.in === "query") {
      query.set(input.name, input.value);
    } else if (input.value !== "" && input.dataset.in === "header") {
      headers[input.name] = input.value;
    }
  }
  if (key) headers.Authorization = `Bearer ${key}`;
  const asked = [...query].length ? `${url}?${query}` : url;
  return { method: method.toUpperCase(), url: asked, headers, ...(body ? { body } : {}) };
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The same call as a curl command. It never holds the key. */
export function curlOf({ method, url, headers, body }, base) {
  const parts = [`curl -X ${method} ${quoted(base + url)}`];
  for (const [name, value] of Object.entries(headers)) {
    if (name !== "Authorization") parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  }
  parts.push('-H "Authorization: Bearer $APNS_LIVE_KEY"');
  if (body) parts.push(`--data ${quoted(body)}`);
  return parts.join(" \\\n  ");
}
