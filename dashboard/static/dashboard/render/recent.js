// The tasks that came to an end lately: completions, dead letters, and attempts that failed meanwhile.

import { showAge } from "../clock.js";
import { isPointedAt, taskAddress } from "../dom.js";
import { count, duration, shorten } from "../format.js";
import { compareText } from "../state.js";
import { learn, titleOf } from "../titles.js";
import { Rows, field, setText } from "./rows.js";

const MOST_ATTEMPTS = 100;
const TEXTS = new Set(["description", "outcome", "agent_id"]);

const filter = document.querySelector("#recent-filter");
const head = document.querySelector("#recent-head");
const note = document.querySelector("#recent-count");
const rows = new Rows(
  document.querySelector("#completion-rows"),
  document.querySelector("#completion-template"),
  { key: "row", idOf: (task) => `${task.task_id}:${task.at}`, fill },
);

const shown = new WeakMap(); // a row of the snapshot → the row here, so that it keeps its identity
let attempts = []; // failed and to be tried again; no snapshot lists them
let state = null;
let sort = { by: "at", down: true };

export function start({ onState, onFrame }) {
  onState((next, previous) => {
    state = next;
    if (next.recent_completions !== previous?.recent_completions || next.dead_letter_tasks !== previous?.dead_letter_tasks) renderUnheld();
  });
  onFrame("events", ({ data }) => {
    learn(data);
    const failed = data.filter((event, index) => event.event === "task_failed" && isTriedAgain(event, data.slice(index + 1)));
    if (failed.length) remember(failed);
  });
  rows.container.addEventListener("mouseleave", render);
  filter.addEventListener("input", render);
  filter.addEventListener("submit", (event) => event.preventDefault());
  head.addEventListener("click", ({ target }) => target.dataset.sort && sortBy(target.dataset.sort));
}

// What went to the dead letter is in the snapshot.
function isTriedAgain({ task_id: id }, later) {
  return !later.some((event) => event.task_id === id && event.event === "task_dead_letter");
}

function remember(events) {
  const failed = events.map((event) => ({
    task_id: event.task_id,
    description: titleOf(event.task_id),
    last_error: event.error,
    agent_id: event.agent_id,
    outcome: "failed",
    at: event.timestamp,
  }));
  attempts = [...failed.reverse(), ...attempts].slice(0, MOST_ATTEMPTS);
  renderUnheld();
}

function renderUnheld() {
  if (isPointedAt(rows.container)) setText(note, "held while you point at it");
  else render();
}

function render() {
  if (!state) return;
  const all = [...state.recent_completions.map(completed), ...state.dead_letter_tasks.map(dead), ...attempts];
  const wanted = all.filter(fits()).sort(order());
  rows.show(wanted);
  document.querySelector("#completions-table").hidden = wanted.length === 0;
  document.querySelector("#completions-empty").hidden = all.length > 0;
  document.querySelector("#recent-none").hidden = all.length === 0 || wanted.length > 0;
  filter.hidden = all.length === 0;
  setText(note, wanted.length < all.length ? `${count(wanted.length)} of ${count(all.length)}` : "");
}

function completed(task) {
  return once(task, { outcome: "completed", at: task.completed_at });
}

function dead(task) {
  return once(task, { task_id: task.id, outcome: "dead letter", at: task.failed_at });
}

function once(task, more) {
  if (!shown.has(task)) shown.set(task, { ...task, ...more });
  return shown.get(task);
}

function fits() {
  const { text, agent, outcome } = Object.fromEntries(
    [...new FormData(filter)].map(([name, value]) => [name, value.trim().toLowerCase()]),
  );
  return (task) =>
    (!outcome || (task.outcome === "completed") === (outcome === "completed")) &&
    (!agent || (task.agent_id ?? "").toLowerCase().includes(agent)) &&
    (!text || `${task.description}\n${task.task_id}\n${task.last_error ?? ""}`.toLowerCase().includes(text));
}

function sortBy(by) {
  sort = { by, down: sort.by === by ? !sort.down : !TEXTS.has(by) };
  for (const button of head.querySelectorAll("[data-sort]")) {
    if (button.dataset.sort === by) button.parentElement.ariaSort = sort.down ? "descending" : "ascending";
    else button.parentElement.removeAttribute("aria-sort");
  }
  render();
}

function order() {
  const { by, down } = sort;
  const sign = down ? -1 : 1;
  const compare = TEXTS.has(by)
    ? (a, b) => compareText(a[by] ?? "", b[by] ?? "")
    : (a, b) => (a[by] ?? -1) - (b[by] ?? -1);
  return (a, b) => sign * compare(a, b) || b.at - a.at || compareText(a.task_id, b.task_id);
}

function fill(row, task) {
  row.dataset.task = task.task_id;
  row.dataset.outcome = task.outcome;
  row.dataset.testid = task.outcome === "completed" ? "completion" : "failure";
  const link = field(row, "description");
  link.href = taskAddress(task.task_id);
  link.title = task.task_id;
  setText(link, shorten(task.description));
  row.firstElementChild.title = task.outcome;
  setText(field(row, "error"), task.outcome === "completed" ? "" : shorten(task.last_error));
  setText(field(row, "outcome"), task.outcome);
  setText(field(row, "agent"), task.agent_id ?? "–");
  setText(field(row, "duration"), duration(task.duration_ms));
  setText(field(row, "tokens"), count(task.tokens_used));
  showAge(field(row, "at"), task.at);
}
