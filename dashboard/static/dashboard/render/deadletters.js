// The dead letters, the newest or by cause (causes.js), and their Retry.

import { announce, byId, onClick, press, setText, showWhen } from "../dom.js";
import { count, countOf } from "../format.js";
import { Requests } from "../requests.js";
import { nameOf } from "../words.js";
import * as causes from "./causes.js";
import { Rows } from "./rows.js";

const panel = byId("dead-letters");
const views = byId("dead-views");
const note = byId("retry-note"); // with what may be said of a retry
const newest = new Rows(byId("dead-rows"), byId("dead-letter-template"), causes.DEAD_ROWS);

let retries = null;
let chosen = null; // the view; else by cause, once those are known
let state = null;

export function start(context) {
  retries = new Requests(context, {
    type: "retry_task", answer: "retry_result", key: "task_id", done: "requeued", texts: note.dataset, tell: tellAtRows,
  });
  onClick(panel, "[data-retry-task]", (button) => retry(button.dataset.retryTask));
  for (const button of panel.querySelectorAll("[disabled]")) button.disabled = false;
  onClick(views, "button", (button) => {
    chosen = button.dataset.view;
    showView();
  });
  causes.start({ retries, onChange: showView });
  context.onState(["dead_letter_tasks", "queue"], (next, previous) => {
    state = next;
    const isNew = next.dead_letter_tasks !== previous?.dead_letter_tasks;
    if (isNew) newest.show(next.dead_letter_tasks);
    if (isNew || next.queue.dead_letter !== previous.queue.dead_letter) causes.refresh();
    showView();
  });
}

function showView() {
  if (!state) return;
  const listed = state.dead_letter_tasks.length;
  const all = state.queue.dead_letter;
  const view = listed && causes.isKnown() ? chosen ?? "cause" : "newest";
  setText(byId("dead-summary"), !all ? "" : view === "newest" ? countOf(listed, all) : count(all));
  panel.dataset.view = view;
  press(views, "view", view);
  showWhen(panel, listed ? view : "none");
}

export async function retry(id) {
  const outcome = await retries.ask(id);
  const said = `${nameOf(id)}: ${outcome.text}`;
  announce(said);
  // A row that succeeded goes away with the next patch, so the panel says it too.
  setText(note, outcome.state === "requeued" || !rowsOf(id).length ? said : "");
  return outcome;
}

function rowsOf(id) {
  return panel.querySelectorAll(`[data-task="${CSS.escape(id)}"]`);
}

function tellAtRows(id, { state: retrying, text }) {
  for (const row of rowsOf(id)) {
    row.dataset.retry = retrying;
    setText(row.querySelector(".outcome"), text);
    // Not `disabled`: that would take the keyboard's place in the table away.
    row.querySelector("[data-retry-task]").ariaDisabled = retrying !== "failed";
  }
}
