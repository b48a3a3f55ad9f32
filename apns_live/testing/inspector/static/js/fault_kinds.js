// What can go wrong, as the form offers it. The fields are those of a scenario file.

export const REASONS = [
  ["ServiceUnavailable", 503],
  ["Shutdown", 503],
  ["InternalServerError", 500],
  ["TooManyRequests", 429],
  ["TooManyProviderTokenUpdates", 429],
  ["ExpiredToken", 410],
  ["Unregistered", 410],
  ["BadDeviceToken", 400],
  ["DeviceTokenNotForTopic", 400],
  ["BadTopic", 400],
  ["TopicDisallowed", 400],
  ["BadCollapseId", 400],
  ["BadExpirationDate", 400],
  ["BadMessageId", 400],
  ["BadPriority", 400],
  ["IdleTimeout", 400],
  ["InvalidPushType", 400],
  ["PayloadEmpty", 400],
  ["ExpiredProviderToken", 403],
  ["InvalidProviderToken", 403],
  ["MissingProviderToken", 403],
  ["Forbidden", 403],
  ["BadPath", 404],
  ["MethodNotAllowed", 405],
  ["PayloadTooLarge", 413],
];

const seconds = (name, label, value) => ({
  name,
  label,
  type: "number",
  value,
  min: "0",
  step: "any",
  unit: "s",
});
const whole = (name, label, value, min = "0") => ({
  name,
  label,
  type: "number",
  value,
  min,
  step: "1",
});

export const KINDS = [
  {
    action: "answer",
    label: "Answer with a reason",
    what: "APNs refuses the push.",
    fields: [
      { name: "reason", label: "Reason", type: "reason", value: "ServiceUnavailable" },
      { ...seconds("retry_after", "Retry-After", ""), optional: true },
    ],
  },
  {
    action: "throttle",
    label: "Throttle",
    what: "429 TooManyRequests above a limit.",
    fields: [whole("limit", "Requests", "1"), seconds("per", "in", "1")],
  },
  {
    action: "delay",
    label: "Slow answers",
    what: "The answer takes longer.",
    fields: [seconds("delay", "By", "2"), seconds("spread", "and up to", "0")],
  },
  {
    action: "withhold",
    label: "Withhold the answer",
    what: "The push arrives, its answer never does.",
    fields: [],
  },
  {
    action: "stall",
    label: "Half an answer",
    what: "The answer begins and stops on that stream.",
    fields: [],
  },
  {
    action: "reset",
    label: "Reset the stream",
    what: "RST_STREAM instead of an answer.",
    fields: [{ ...whole("error_code", "Error code", "2"), optional: true }],
  },
  {
    action: "refuse_stream",
    label: "Refuse the stream",
    what: "REFUSED_STREAM: the push was not processed.",
    fields: [],
  },
  {
    action: "goaway",
    label: "GOAWAY",
    what: "APNs closes the connection in mid-burst.",
    fields: [
      { name: "reason", label: "Reason", type: "reason", value: "Shutdown", optional: true },
    ],
  },
  {
    action: "disconnect",
    label: "Disconnect",
    what: "The connection breaks without a word.",
    fields: [],
  },
  {
    action: "silence",
    label: "Fall silent",
    what: "The connection neither reads nor writes again.",
    fields: [],
  },
  {
    action: "refuse_connection",
    label: "Refuse connections",
    what: "New connections are closed before TLS.",
    fields: [],
    connection: true,
  },
  {
    action: "fail_tls",
    label: "Fail TLS",
    what: "New connections get a TLS alert.",
    fields: [{ name: "untrusted", label: "Untrusted certificate instead", type: "checkbox" }],
    connection: true,
  },
  {
    action: "slow_window",
    label: "Small, slow windows",
    what: "New connections get small windows, given back slowly.",
    fields: [whole("window", "Window, bytes", "1024"), whole("rate", "Given back, bytes/s", "0")],
    connection: true,
  },
];

/** Who is struck, when, and how often. */
export const SCOPE = [
  {
    name: "token",
    label: "Token begins with",
    type: "text",
    pattern: "[0-9A-Fa-f]*",
    optional: true,
    request: true,
  },
  { ...whole("times", "At most, times", "", "1"), optional: true },
  { ...seconds("lasting", "Lasting", ""), optional: true },
  {
    name: "percent",
    label: "Share of pushes",
    type: "number",
    value: "100",
    min: "0",
    max: "100",
    step: "any",
    unit: "%",
  },
];

/** A fault in a few words. */
export function faultText(fault) {
  const kind = KINDS.find((each) => each.action === fault.action);
  const parts = [];
  for (const [name, value] of Object.entries(fault)) {
    if (["id", "action", "matched", "fired", "name"].includes(name)) continue;
    if (name === "fraction") parts.push(`${Math.round(value * 1000) / 10} % of them`);
    else if (name === "token") parts.push(`token ${String(value).slice(0, 8)}`);
    else if (name === "times") parts.push(`${value} times`);
    else if (name === "lasting") parts.push(`for ${value} s`);
    else if (name === "reason") parts.push(String(value));
    else
      parts.push(
        `${name.replaceAll("_", " ")} ${typeof value === "object" ? JSON.stringify(value) : value}`,
      );
  }
  return { title: fault.name || kind?.label || fault.action, detail: parts.join(", ") };
}
