// The tasks that ended lately, and attempts that failed meanwhile.

import { byId, isPointedAt, once, setText } from "../dom.js";
import { countOf } from "../format.js";
import { compareText } from "../state.js";
import { titleOf } from "../words.js";
import { Rows } from "./rows.js";
import { showSize, sortable, sorted } from "./table.js";

const MOST_ATTEMPTS = 100;

const panel = byId("completions");
const table = panel.querySelector("table");
const filter = byId("recent-filter");
const note = byId("recent-count");
const rows = new Rows(byId("completion-rows"), byId("completion-template"), { idOf: ({ row }) => row });

const completed = once((task) => asRow(task, "completed", task.completed_at));
const dead = once((task) => asRow({ ...task, task_id: task.id, error: task.last_error }, "dead letter", task.failed_at));

let attempts = []; // failed and to be tried again; no snapshot lists them
let ended = null; // as the snapshot lists them

export function start({ onState, onFrame }) {
  onState(["recent_completions", "dead_letter_tasks"], (state) => {
    ended = [...state.recent_completions.map(completed), ...state.dead_letter_tasks.map(dead)];
    renderUnheld();
  });
  onFrame("events", ({ data }) => {
    // The dead are in the snapshot.
    const dying = new Set(data.filter(({ event }) => event === "task_dead_letter").map(({ task_id: id }) => id));
    const failed = data.filter(({ event, task_id: id }) => event === "task_failed" && !dying.has(id));
    if (!failed.length) return;
    attempts = [...failed.map(attempt).reverse(), ...attempts].slice(0, MOST_ATTEMPTS);
    renderUnheld();
  });
  rows.container.addEventListener("mouseleave", render);
  filter.addEventListener("input", render);
  filter.addEventListener("submit", (event) => event.preventDefault());
  sortable(table, render);
}

function attempt(event) {
  return asRow({ ...event, description: titleOf(event.task_id) }, "failed", event.timestamp);
}

function asRow(task, outcome, at) {
  const kind = outcome === "completed" ? "completion" : "failure";
  return { ...task, outcome, at, kind, row: `${task.task_id}:${at}`, agent: task.agent_id ?? "–" };
}

function renderUnheld() {
  if (isPointedAt(rows.container)) setText(note, "held while you point at it");
  else render();
}

function render() {
  if (!ended) return;
  const all = [...ended, ...attempts];
  const listed = sorted(table, all.filter(fits()), (a, b) => b.at - a.at || compareText(a.task_id, b.task_id));
  rows.show(listed);
  setText(note, listed.length < all.length ? countOf(listed.length, all.length) : "");
  showSize(panel, listed.length, all.length);
}

function fits() {
  const [text, agent, outcome] = ["text", "agent", "outcome"].map((name) => filter.elements[name].value.trim().toLowerCase());
  return (task) =>
    (!outcome || (task.outcome === "completed") === (outcome === "completed")) &&
    task.agent.toLowerCase().includes(agent) &&
    [task.description, task.task_id, task.error].join("\n").toLowerCase().includes(text);
}
