// How figures are written. dashboard/templatetags/dashboard.py does the same for the first paint.

const whole = new Intl.NumberFormat("en");
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat("en-CA", { dateStyle: "short", timeStyle: "long", hourCycle: "h23" });
const SHORT_TEXT = 300; // characters; a task's description may have 16,384 of them

export function count(number) {
  return Number.isFinite(number) ? whole.format(number) : "–";
}

/** A number that must fit its tile: `48,213`, `1.25 M`, `18.2 M`. */
export function figure(number) {
  if (!Number.isFinite(number) || number < 1_000_000) return count(number);
  if (number < 10_000_000) return `${(Math.floor(number / 10_000) / 100).toFixed(2)} M`;
  return `${tenths.format(Math.floor(number / 100_000) / 10)} M`;
}

/** A length of time (ms), as coarse as still tells something: `42 s`, `2 h 5 min`. */
export function span(ms) {
  const minutes = Math.floor(Math.max(0, ms) / 60_000);
  const hours = Math.floor(minutes / 60);
  if (minutes < 1) return `${Math.floor(Math.max(0, ms) / 1000)} s`;
  if (hours < 1) return `${minutes} min`;
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
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
export function shorten(text, most = SHORT_TEXT) {
  const characters = [...(text ?? "").slice(0, 2 * most + 1)];
  return characters.length > most ? `${characters.slice(0, most).join("")}…` : text ?? "";
}

/** How often a minute, with a decimal where it is seldom: `0`, `1.5`, `240`. */
export function rate(perMinute) {
  return perMinute < 10 ? String(Math.round(perMinute * 10) / 10) : count(Math.round(perMinute));
}

export function lane(priority) {
  return ["urgent", "high", "normal", "low"][priority];
}

export function list(texts) {
  return texts?.join(", ") ?? "";
}

export function json(value) {
  return value ? JSON.stringify(value, null, 2) : "";
}

/** In the viewer's own time zone. */
export function absolute(at) {
  return at ? moment.format(at).replace(",", "") : "";
}

/** `3 of 12`, or `12` where nothing is left out. */
export function countOf(shown, all) {
  return shown < all ? `${count(shown)} of ${count(all)}` : count(all);
}

export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}
