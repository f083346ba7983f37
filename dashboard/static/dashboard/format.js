// How figures are written. dashboard/templatetags/dashboard.py does the same for the first paint.

const whole = new Intl.NumberFormat("en");
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat("en-CA", {
  year: "numeric", month: "2-digit", day: "2-digit",
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short",
});
const SHORT_TEXT = 300; // characters; a task's description may have 16,384 of them

/** A whole number with its thousands set apart. */
export function count(number) {
  return Number.isFinite(number) ? whole.format(number) : "–";
}

/** A number that must fit its tile: `48,213`, `1.25 M`, `18.2 M`. */
export function figure(number) {
  if (!Number.isFinite(number) || number < 1_000_000) return count(number);
  if (number < 10_000_000) return `${(Math.floor(number / 10_000) / 100).toFixed(2)} M`;
  return `${tenths.format(Math.floor(number / 100_000) / 10)} M`;
}

/** A length of time (ms), as coarse as still tells something: `42 s`, `3 min`, `2 h 5 min`. */
export function span(ms) {
  const seconds = Math.floor(Math.max(0, ms) / 1000);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (minutes < 1) return `${seconds} s`;
  if (hours < 1) return `${minutes} min`;
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** How long a piece of work took (ms): `840 ms`, `1.2 s`, `3 min 4 s`. */
export function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60_000) return `${(Math.floor(ms / 100) / 10).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${Math.floor(ms / 1000) % 60} s`;
  return span(ms);
}

/** The beginning of a text; never half of a surrogate pair. */
export function shorten(text) {
  const value = text ?? "";
  if (value.length <= SHORT_TEXT) return value;
  const characters = [...value.slice(0, 2 * SHORT_TEXT + 1)];
  return characters.length <= SHORT_TEXT ? value : characters.slice(0, SHORT_TEXT).join("") + "…";
}

/** A value of JSON, to be read by people; empty where there is none. */
export function json(value) {
  return value ? JSON.stringify(value, null, 2) : "";
}

/** The moment `at` (ms since the epoch) in the viewer's own time zone. */
export function absolute(at) {
  return at ? moment.format(at).replace(",", "") : "";
}

/** How many of `all` are shown: `3 of 12`, or `12` where nothing is left out. */
export function countOf(shown, all) {
  return shown < all ? `${count(shown)} of ${count(all)}` : count(all);
}

/** `3 agents`, `1 agent`. */
export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}
