// How figures are written; dashboard/templatetags does the same for the first paint.

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
  const [seconds, minutes, hours] = [1_000, 60_000, 3_600_000].map((unit) => Math.floor(Math.max(0, ms) / unit));
  if (minutes < 1) return `${seconds} s`;
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

const ESCAPES = /\x1b\[[0-?]*[ -/]*[@-~]?|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)|\x1b[ -/]*[0-~]?|\x9b[0-9;:]+[@-~]|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]/g;

/** Without a terminal's control characters; agentcom/texts.py does the same. */
export function plain(text) {
  return text.replace(ESCAPES, "");
}

const VISIBLE = /[^\p{C}\p{Z}\s\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\u{1d159}\u{e0100}-\u{e01ef}]/u;

/** As in agentcom/texts.py. */
export function isVisible(text) {
  return VISIBLE.test(text);
}

/** So that no mark of direction in it turns its neighbours around. */
export function isolated(text) {
  return /[\u202a-\u202e\u2066-\u2069]/.test(text) ? `\u2068${text.replace(/[\u2066-\u2069]/g, "")}\u2069` : text;
}

export function list(texts) {
  return texts?.map(isolated).join(", ") ?? "";
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
