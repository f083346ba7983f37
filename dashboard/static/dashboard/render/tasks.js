// The tasks that came to an end: completions, and dead letters with their Retry.

import { showAge } from "../clock.js";
import { count, duration, shorten } from "../format.js";
import { Retries } from "../retry.js";
import { announce } from "./announcement.js";
import { Rows, field, setText } from "./rows.js";

const completions = new Rows(
  document.querySelector("#completion-rows"),
  document.querySelector("#completion-template"),
  { key: "task", idOf: (task) => task.task_id, fill: fillCompletion },
);
const deadRows = document.querySelector("#dead-rows");
const deadLetters = new Rows(
  deadRows,
  document.querySelector("#dead-letter-template"),
  { key: "task", idOf: (task) => task.id, fill: fillDeadLetter },
);

export function start({ onState, onFrame, onStatus, send }) {
  const retries = new Retries({ send, tell: showOutcome });
  onState(renderTasks);
  onFrame("retry_result", (frame) => retries.answered(frame));
  onStatus((status) => {
    if (status.state !== "live") retries.abandon();
  });
  onRetry((taskId) => retries.ask(taskId));
}

function renderTasks(state, previous) {
  if (state.recent_completions !== previous?.recent_completions) {
    completions.show(state.recent_completions);
    showEither("#completions-table", "#completions-empty", state.recent_completions.length > 0);
  }
  if (state.dead_letter_tasks !== previous?.dead_letter_tasks) {
    deadLetters.show(state.dead_letter_tasks);
    showEither("#dead-table", "#dead-empty", state.dead_letter_tasks.length > 0);
  }
  setText(document.querySelector("#dead-summary"), deadSummary(state));
}

// Call `retry(taskId)` whenever somebody presses the Retry of a row.
function onRetry(retry) {
  deadRows.addEventListener("click", (event) => {
    const button = event.target.closest("[data-retry]");
    if (button && button.getAttribute("aria-disabled") !== "true") retry(button.closest("[data-task]").dataset.task);
  });
  for (const button of deadRows.querySelectorAll("[data-retry]")) button.disabled = false;
}

// Tell the outcome `{state: waiting|requeued|failed, text}` of a retry at its row.
function showOutcome(taskId, { state, text }) {
  const row = deadLetters.get(taskId);
  if (row) {
    row.dataset.retry = state;
    setText(field(row, "outcome"), text);
    // Not `disabled`: that would take the keyboard's place in the table away.
    row.querySelector("[data-retry]").setAttribute("aria-disabled", String(state !== "failed"));
  }
  if (state === "waiting") return;
  announce(`${taskId}: ${text}`);
  // A row that succeeded goes away with the next patch, so the panel says it too.
  setText(document.querySelector("#retry-note"), state === "requeued" || !row ? `${taskId}: ${text}` : "");
}

function deadSummary({ queue, dead_letter_tasks: listed }) {
  if (queue.dead_letter > listed.length) return `newest ${count(listed.length)} of ${count(queue.dead_letter)}`;
  return queue.dead_letter ? count(queue.dead_letter) : "";
}

function showEither(table, empty, some) {
  document.querySelector(table).hidden = !some;
  document.querySelector(empty).hidden = some;
}

function fillCompletion(row, task) {
  setText(field(row, "description"), shorten(task.description));
  setText(field(row, "id"), task.task_id);
  setText(field(row, "agent"), task.agent_id ?? "–");
  setText(field(row, "duration"), duration(task.duration_ms));
  setText(field(row, "tokens"), count(task.tokens_used));
  showAge(field(row, "completed"), task.completed_at);
}

function fillDeadLetter(row, task) {
  setText(field(row, "description"), shorten(task.description));
  setText(field(row, "id"), task.id);
  setText(field(row, "error"), shorten(task.last_error));
  setText(field(row, "attempts"), count(task.retry_count));
  showAge(field(row, "failed"), task.failed_at);
  const button = row.querySelector("[data-retry]");
  button.disabled = false;
  button.setAttribute("aria-label", `Retry ${task.id}`);
  if (row.dataset.failedAt !== String(task.failed_at)) forgetOutcome(row, button);
  row.dataset.failedAt = task.failed_at;
}

// It was retried and failed again: what the row said is about the time before.
function forgetOutcome(row, button) {
  delete row.dataset.retry;
  setText(field(row, "outcome"), "");
  button.setAttribute("aria-disabled", "false");
}
