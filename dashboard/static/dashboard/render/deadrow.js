// What every row of a dead task has, wherever it is listed: its link, when it failed, its Retry.

import { showAge } from "../clock.js";
import { taskAddress } from "../dom.js";
import { shorten } from "../format.js";
import { field, setText } from "./rows.js";

export function fillDead(row, task) {
  const link = field(row, "description");
  link.href = taskAddress(task.id);
  setText(link, shorten(task.description));
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

/** The outcome `{state: waiting|requeued|failed, text}` of a retry. */
export function showAtRow(row, { state, text }) {
  row.dataset.retry = state;
  setText(field(row, "outcome"), text);
  // Not `disabled`: that would take the keyboard's place in the table away.
  row.querySelector("[data-retry]").setAttribute("aria-disabled", String(state !== "failed"));
}
