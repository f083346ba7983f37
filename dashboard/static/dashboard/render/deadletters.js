// The dead letters: the newest as the snapshot lists them, with their Retry. By cause: causes.js.

import { count, shorten } from "../format.js";
import { Retries } from "../retry.js";
import { announce } from "./announcement.js";
import * as causes from "./causes.js";
import { fillDead, showAtRow } from "./deadrow.js";
import { Rows, field, setText } from "./rows.js";

const panel = document.querySelector(".dead-letters");
const views = document.querySelector("#dead-views");
const newest = new Rows(
  document.querySelector("#dead-rows"),
  document.querySelector("#dead-letter-template"),
  { key: "task", idOf: (task) => task.id, fill: fillTask },
);

let chosen = null; // the view that somebody asked for; else by cause, once the causes are known
let letters = 0;

export function start({ onState, onFrame, onStatus, send }) {
  const retries = new Retries({ send, tell: showOutcome });
  onFrame("retry_result", (frame) => retries.answered(frame));
  onStatus((status) => status.state !== "live" && retries.abandon());
  panel.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-retry]");
    if (button && button.getAttribute("aria-disabled") !== "true") retries.ask(button.closest("[data-task]").dataset.task);
  });
  // The drawer has a Retry too, and tells the outcome itself.
  document.addEventListener("retry-task", ({ detail }) => retries.ask(detail.id).then(detail.told));
  for (const button of panel.querySelectorAll("[data-retry]")) button.disabled = false;
  views.addEventListener("click", ({ target }) => {
    if (!target.dataset.view) return;
    chosen = target.dataset.view;
    showView();
  });
  causes.start({ retries, onChange: showView });
  onState(render);
}

function render(state, previous) {
  letters = state.queue.dead_letter;
  if (state.dead_letter_tasks !== previous?.dead_letter_tasks) {
    newest.show(state.dead_letter_tasks);
    causes.refresh();
  } else if (letters !== previous?.queue.dead_letter) causes.refresh();
  showView(state.dead_letter_tasks.length);
}

function showView(listed = newest.container.childElementCount) {
  const view = listed && causes.isKnown() ? chosen ?? "cause" : "newest";
  const cut = view === "newest" && letters > listed;
  setText(document.querySelector("#dead-summary"), cut ? `newest ${count(listed)} of ${count(letters)}` : letters ? count(letters) : "");
  panel.dataset.view = view;
  for (const button of views.children) button.ariaPressed = String(button.dataset.view === view);
  views.hidden = listed === 0;
  document.querySelector("#dead-empty").hidden = listed > 0;
  document.querySelector("#dead-table").hidden = listed === 0 || view !== "newest";
  document.querySelector("#dead-groups").hidden = listed === 0 || view !== "cause";
}

// Tell the outcome `{state: waiting|requeued|failed, text, quiet}` of a retry wherever the task is listed.
function showOutcome(taskId, outcome) {
  const rows = [newest.get(taskId), causes.rowOf(taskId)].filter(Boolean);
  for (const row of rows) showAtRow(row, outcome);
  const { state, text, quiet } = outcome;
  if (state === "waiting" || quiet) return;
  announce(`${taskId}: ${text}`);
  // A row that succeeded goes away with the next patch, so the panel says it too.
  setText(document.querySelector("#retry-note"), state === "requeued" || !rows.length ? `${taskId}: ${text}` : "");
}

function fillTask(row, task) {
  setText(field(row, "id"), task.id);
  setText(field(row, "error"), shorten(task.last_error));
  setText(field(row, "attempts"), count(task.retry_count));
  fillDead(row, task);
}
