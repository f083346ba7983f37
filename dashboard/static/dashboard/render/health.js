// The health light, its conditions, and their voice in the live region and the tab's title.

import { showAge } from "../clock.js";
import { count, plural } from "../format.js";
import { announce } from "./announcement.js";
import { Rows, field, setText } from "./rows.js";
import { setTitle } from "./title.js";

const MOST_SUBJECTS = 8;
const TASK = /^task-[0-9a-f]{16}$/;

const conditions = new Rows(
  document.querySelector("#condition-list"),
  document.querySelector("#condition-template"),
  { key: "code", idOf: (condition) => condition.code, fill: fillCondition },
);

export function start({ onState }) {
  onState(renderHealth);
}

function renderHealth({ health }, previous) {
  if (health === previous?.health) return;
  const { details } = health;
  document.documentElement.dataset.health = health.status;
  setText(document.querySelector("#health-word"), health.status);
  setText(document.querySelector("#health-summary"), summary(details));
  document.querySelector("#all-clear").hidden = details.length > 0;
  conditions.show(details);
  setTitle({ health: health.status, conditions: details.length });
  if (previous && codes(health) !== codes(previous.health)) {
    announce(`Health ${health.status}: ${health.conditions.join("; ") || "all clear"}`);
  }
}

// The gravest one in its own words; the others are one click away.
function summary(details) {
  if (!details.length) return "all clear";
  const gravest = details.find(({ severity }) => severity === "critical") ?? details[0];
  const others = details.length - 1;
  return others ? `${gravest.message}, and ${plural(others, "more condition")}` : gravest.message;
}

// What is worth a word aloud: another light or another kind of condition, not each new number.
function codes(health) {
  return [health.status, ...health.details.map((detail) => detail.code)].join(" ");
}

function fillCondition(element, condition) {
  element.dataset.severity = condition.severity;
  setText(field(element, "severity"), condition.severity);
  setText(field(element, "message"), condition.message);
  showAge(field(element, "since"), condition.since);
  setText(field(element, "advice"), condition.advice ?? "");
  fillSubjects(field(element, "subjects"), condition.subjects);
}

function fillSubjects(list, subjects) {
  const said = subjects.join("\0");
  if (list.dataset.said === said) return;
  list.dataset.said = said;
  const shown = subjects.slice(0, MOST_SUBJECTS).map((subject) => item(subjectLink(subject)));
  const others = subjects.length - shown.length;
  if (others > 0) shown.push(item(`and ${count(others)} more`));
  list.replaceChildren(...shown);
}

function item(content) {
  const element = document.createElement("li");
  element.append(content);
  return element;
}

// A task opens; an agent is shown in the table.
function subjectLink(subject) {
  const link = document.createElement("a");
  link.dir = "auto";
  link.textContent = subject;
  if (TASK.test(subject)) {
    link.href = `?task=${subject}`;
  } else {
    link.href = "#agents";
    link.dataset.showAgents = subject;
  }
  return link;
}
