// The health light and its conditions, and their voice in the live region.

import { announce, byId, page, setText } from "../dom.js";
import { count, plural } from "../format.js";
import { nameOf } from "../words.js";
import { Rows } from "./rows.js";

const MOST_SUBJECTS = 8;
const TASK = /^task-[0-9a-f]{16}$/;
const WEBHOOK = /^hook-[0-9a-f]{16}$/;

const conditions = new Rows(byId("condition-list"), byId("condition-template"), { idOf: ({ code }) => code, view });

export function start({ onState }) {
  onState(["health"], ({ health }, previous) => show(health, previous?.health));
}

function show(health, before) {
  const { status, details } = health;
  page.dataset.health = status;
  setText(byId("health-word"), status);
  setText(byId("health-summary"), summary(details));
  byId("all-clear").hidden = details.length > 0;
  conditions.show(details);
  if (before && codes(health) !== codes(before)) announce(`Health ${status}: ${health.conditions.join("; ") || "all clear"}`);
}

// The gravest in its own words.
function summary(details) {
  if (!details.length) return "all clear";
  const { message } = details.find(({ severity }) => severity === "critical") ?? details[0];
  return details.length > 1 ? `${message}, and ${plural(details.length - 1, "more condition")}` : message;
}

// Not each new number is worth a word aloud.
function codes({ status, details }) {
  return [status, ...details.map(({ code }) => code)].join(" ");
}

function view(condition) {
  const subjects = condition.subjects.slice(0, MOST_SUBJECTS).map(linked);
  const others = condition.subjects.length - subjects.length;
  return { ...condition, subjects: others ? [...subjects, { others: `and ${count(others)} more` }] : subjects };
}

function linked(subject) {
  if (WEBHOOK.test(subject)) return { subject, address: `admin/webhooks/endpoint/${subject}/change/` };
  return TASK.test(subject) ? { subject: nameOf(subject), address: `?task=${subject}` } : { subject, address: "#agents", agent: subject };
}
