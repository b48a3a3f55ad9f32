// Which of a phone's activities is shown where.

const weight = (activity) => [activity.relevance_score ?? 0, activity.updated_at];

function byRelevance(a, b) {
  const [scoreA, atA] = weight(a);
  const [scoreB, atB] = weight(b);
  return scoreB - scoreA || atB - atA;
}

/** Those on the Lock Screen, the most relevant first. */
export const onLockScreen = (device) =>
  device.activities.filter((each) => each.state !== "dismissed").sort(byRelevance);

/** Those in the Dynamic Island: only active ones. */
export const inIsland = (device) =>
  device.activities.filter((each) => each.state === "active").sort(byRelevance);

/** The last one that went away, when nothing else is shown. */
export const lastDismissed = (device) =>
  device.activities.filter((each) => each.state === "dismissed").at(-1) ?? null;

/** The one that stands for the phone in captions and filters. */
export const mainActivity = (device) =>
  inIsland(device)[0] ?? onLockScreen(device)[0] ?? lastDismissed(device);

/** The next thing that time will do: `{at, what, device, activity}`, or null. */
export function nextOnTheClock(devices, now) {
  let next = null;
  const offer = (at, what, device, activity) => {
    if (at !== null && at > now && (next === null || at < next.at))
      next = { at, what, device, activity };
  };
  for (const device of devices) {
    for (const activity of device.activities) {
      if (activity.state === "active") {
        if (!activity.stale) offer(activity.stale_date, "goes stale", device, activity);
        offer(activity.ends_at, "is ended by the system", device, activity);
      } else if (activity.state === "ended") {
        offer(activity.dismissal_date, "leaves the Lock Screen", device, activity);
      }
    }
  }
  return next;
}
