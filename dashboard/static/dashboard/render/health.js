// The health light, its conditions, and their voice in the live region and the tab's title.

import { showAge } from "../clock.js";
import { plural } from "../format.js";
import { announce } from "./announcement.js";
import { Rows, field, setChips, setText } from "./rows.js";
import { setTitle } from "./title.js";

const MOST_SUBJECTS = 6;

const conditions = new Rows(
  document.querySelector("#condition-list"),
  document.querySelector("#condition-template"),
  { key: "index", idOf: (_, index) => String(index), fill: fillCondition },
);

export function start({ onState }) {
  onState(renderHealth);
}

function renderHealth({ health }, previous) {
  if (health === previous?.health) return;
  document.documentElement.dataset.health = health.status;
  setText(document.querySelector("#health-word"), health.status);
  const summary = health.details.length ? plural(health.details.length, "condition") : "all clear";
  setText(document.querySelector("#health-summary"), summary);
  document.querySelector("#all-clear").hidden = health.details.length > 0;
  conditions.show(health.details);
  setTitle({ health: health.status, conditions: health.details.length });
  if (previous && codes(health) !== codes(previous.health)) {
    announce(`Health ${health.status}: ${health.conditions.join("; ") || "all clear"}`);
  }
}

// What is worth a word aloud: another light or another kind of condition, not each new number.
function codes(health) {
  return [health.status, ...health.details.map((detail) => detail.code)].join(" ");
}

// Whom a condition concerns, but for those that its message names already.
function unsaid({ message, subjects }) {
  const said = new Set(message.split(/[\s,()]+/));
  return subjects.filter((subject) => !said.has(subject));
}

function fillCondition(element, condition) {
  element.dataset.severity = condition.severity;
  element.dataset.code = condition.code;
  setText(field(element, "severity"), condition.severity);
  setText(field(element, "message"), condition.message);
  showAge(field(element, "since"), condition.since);
  setChips(field(element, "subjects"), unsaid(condition), MOST_SUBJECTS);
}
