// The delivery log's vocabulary, for people.

export const WHY = new Map([
  ["budget", "The hourly budget of priority-10 pushes is spent: delayed, as priority 5 is."],
  ["start budget", "The phone's push-to-start budget is spent."],
  ["older timestamp", "Older than what is shown."],
  ["future timestamp", "More than 8 hours ahead of the phone's clock."],
  ["denied", "The owner answered Don't Allow."],
  ["undecodable", "The phone cannot decode the payload or the content state."],
  ["no alert", "A start needs an alert."],
  ["ended", "The activity has ended or was dismissed."],
  ["limit", "As many activities as the app or the phone may have."],
  ["too large", "Attributes and content state are over 4 KB."],
  ["disabled", "Live Activities are switched off, or the app is gone."],
  ["low power", "The phone saves power and starts nothing."],
  ["wrong token", "A token of another kind, or another attributes type."],
  ["channel", "No such channel, or the phone is too old for channels."],
  ["collapsed", "A second start with the collapse id of a running activity."],
  ["silent token", "The token was replaced or has gone silent."],
  ["offline", "The phone was away and the push may not be stored."],
  ["expired", "It was stored, and its expiration passed."],
  ["replaced", "It was stored, and a newer message took its place."],
  ["device offline", "It waits until the phone is back."],
  ["power", "It waits: the phone saves power."],
]);

/** What became of a push: `kind` for colour, `label` in a word or two, `text` as a sentence. */
export function verdict(push) {
  if (push.status !== 200) {
    return { kind: "refused", label: "Refused", text: `${push.status} ${push.reason}`.trim() };
  }
  const text = said(push);
  switch (push.state) {
    case "delivered":
      return { kind: "delivered", label: "Delivered", text: "" };
    case "delivered from storage":
      return {
        kind: "delivered",
        label: "Delivered late",
        text: push.demoted ? "Demoted: the budget was spent." : "It had waited for the phone.",
      };
    case "stored":
      return { kind: "stored", label: push.demoted ? "Delayed" : "Stored", text };
    case "discarded":
      return { kind: "discarded", label: "Ignored", text };
    default:
      return { kind: "received", label: push.channel ? "Broadcast" : "Received", text };
  }
}

/** Why a push was stored or ignored. What cannot be decoded names the field, which differs each time. */
export function said({ why, detail }) {
  if (why === "undecodable" && detail) return detail.replace(/^content-state does not decode: /, "");
  return WHY.get(why) ?? why ?? "";
}

/** What there is to add to `said`, or null when it is the same. */
export function detailOf({ why, detail }) {
  if (why === "undecodable" && detail) return WHY.get(why);
  const plain = (text) => text.toLowerCase().replace(/\.$/, "");
  return detail && plain(detail) !== plain(WHY.get(why) ?? "") ? detail : null;
}

export const ENDED_BY = new Map([
  ["push", "ended by a push"],
  ["app", "ended by the app"],
  ["system", "ended by the system after 8 hours"],
  ["user", "swiped away"],
  ["denied", "its owner answered Don't Allow"],
]);
