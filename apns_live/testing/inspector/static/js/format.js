// Numbers, times and durations as people read them.

const number = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 2 });
const clock = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});
const minute = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { weekday: "long", day: "numeric", month: "long" });
const short = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

const withYear = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  year: "numeric",
});

const LATEST = 8.64e12;
const dateOf = (seconds) => (Math.abs(seconds) < LATEST ? new Date(seconds * 1000) : null);
const formatted = (format, seconds) => {
  const date = dateOf(seconds);
  return date ? format.format(date) : "far away";
};

export const count = (value) => number.format(value);
export const timeOfDay = (seconds) => formatted(clock, seconds);
export const hourMinute = (seconds) => formatted(minute, seconds);
export const dayName = (seconds) => formatted(day, seconds);
export const dayAndYear = (seconds) => formatted(withYear, seconds);
export const dayAndTime = (seconds) =>
  `${formatted(short, seconds)}, ${formatted(minute, seconds)}`;

/** A moment: the time alone when it is within half a day, with the day otherwise. */
export function moment(seconds, now) {
  return Math.abs(seconds - now) < 43_200 ? timeOfDay(seconds) : dayAndTime(seconds);
}

/** A duration in its two largest parts: `2 h 5 min`. */
export function duration(seconds) {
  const total = Math.max(0, Math.round(seconds));
  if (total < 60) return `${total} s`;
  if (total < 3600)
    return total % 60 && total < 600
      ? `${Math.floor(total / 60)} min ${total % 60} s`
      : `${Math.floor(total / 60)} min`;
  const hours = Math.floor(total / 3600);
  if (hours < 48)
    return total % 3600 >= 60 ? `${hours} h ${Math.floor((total % 3600) / 60)} min` : `${hours} h`;
  return `${count(Math.floor(hours / 24))} days`;
}

export function relative(seconds, now) {
  const apart = seconds - now;
  if (Math.abs(apart) < 1) return "now";
  return apart > 0 ? `in ${duration(apart)}` : `${duration(-apart)} ago`;
}

/** A running clock: `4:05`, `1:04:05`. */
export function stopwatch(seconds) {
  const total = Math.max(0, Math.floor(seconds));
  const parts = [Math.floor(total / 60) % 60, total % 60].map((part) =>
    String(part).padStart(2, "0"),
  );
  if (total >= 3600) return `${Math.floor(total / 3600)}:${parts.join(":")}`;
  return `${Number(parts[0])}:${parts[1]}`;
}

/** A number of a content state. Integers beyond what a double holds come as they are. */
export function value(given) {
  if (typeof given !== "number") return String(given);
  return Math.abs(given) >= 1e15 || (given !== 0 && Math.abs(given) < 0.005)
    ? String(given)
    : count(given);
}

const NAME = /^[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*$/;

/** `someKey_name` as words: `Some key name`. Anything else stays as it is. */
export function words(name) {
  const text = String(name).slice(0, 80);
  if (!NAME.test(text)) return text;
  const spaced = text
    .replace(/([a-z0-9])([A-Z])/g, "$1 $2")
    .replace(/[_-]/g, " ")
    .toLowerCase();
  return spaced[0].toUpperCase() + spaced.slice(1);
}

export const firstDigits = (token) => (token ? String(token).slice(0, 8) : "");
