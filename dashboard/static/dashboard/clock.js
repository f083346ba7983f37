// Ages, by the hub's clock: a viewer's computer may be minutes off.

import { setText } from "./dom.js";
import { absolute, span } from "./format.js";

let ahead = 0; // ms that the hub's clock is ahead of this computer's

/** `timestamp`: the hub's time just now. */
export function synchronise(timestamp) {
  ahead = timestamp - Date.now();
}

export function hubTime() {
  return Date.now() + ahead;
}

/** Make the `<time>` inside `element` tell the age of `at` (ms; nothing where it is missing). */
export function showAge(element, at) {
  const time = element.querySelector("time");
  time.dataset.at = at || "";
  time.title = absolute(at);
  if (at) time.dateTime = new Date(at).toISOString();
  else time.removeAttribute("datetime");
  tell(time);
}

// Every age on the page stays current.
setInterval(() => document.querySelectorAll("time[data-at]").forEach(tell), 1000);

function tell(time) {
  setText(time, time.dataset.at ? span(hubTime() - time.dataset.at) : "–");
}
