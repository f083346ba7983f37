// The drawer: all about one task, at an address of its own, `?task=ID`.

import { askText, paced } from "../ask.js";
import { byId, onClick, setText, taskAddress } from "../dom.js";
import { absolute, count, duration, isVisible, plain, shorten } from "../format.js";
import { valuesIn } from "../json.js";
import { byWhom, detailOf, wordsOf } from "../words.js";
import { fill } from "./fill.js";
import { actsOn } from "./steer.js";

const REFRESH_MS = 500;
const WAITING_MS = 5_000; // why a task waits changes without an event
const LONGEST_TITLE = 160;

const drawer = byId("drawer");
const note = byId("drawer-note");
const refresh = paced(load, REFRESH_MS);

let shown = null; // the id of the task that is open
let status = null;
let opener = null; // the link to come back to

export function start({ onFrame }) {
  document.addEventListener("click", followLink);
  document.addEventListener("open-task", ({ detail }) => open(detail));
  addEventListener("popstate", followAddress);
  drawer.addEventListener("close", leave);
  document.addEventListener("keydown", ({ key }) => {
    if (key === "Escape" && !document.querySelector("dialog:modal")) drawer.close();
  });
  onClick(drawer, "#drawer-copy", copyId);
  onFrame("events", ({ data }) => data.some((event) => event.task_id === shown) && refresh());
  onFrame("snapshot", () => status && refresh()); // events may be missing
  setInterval(() => ["queued", "scheduled"].includes(status) && refresh(), WAITING_MS);
  followAddress();
}

function followLink(event) {
  const link = event.target.closest?.('a[href^="?task="]');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  open(addressed(link), link);
}

function addressed({ search }) {
  return new URLSearchParams(search).get("task");
}

function open(id, link = document.activeElement) {
  if (id === shown) return;
  // One step back closes the drawer, however many tasks it showed.
  if (shown) history.replaceState(history.state, "", taskAddress(id));
  else {
    opener = link;
    history.pushState({ drawer: true }, "", taskAddress(id));
  }
  show(id);
}

function followAddress() {
  const id = addressed(location);
  if (id) show(id);
  else drawer.close();
}

function show(id) {
  shown = id;
  status = null;
  fill(drawer, { id, title: "…" });
  setText(note, "");
  drawer.show();
  byId("drawer-title").focus();
  load();
}

// Closed by the button, by Escape or by going back.
function leave() {
  shown = status = null;
  if (addressed(location)) {
    if (history.state?.drawer) history.back();
    else history.replaceState(null, "", location.pathname); // it was opened by its address
  }
  (opener?.isConnected ? opener : byId("content")).focus();
  opener = null;
}

async function load() {
  const id = shown;
  if (!id) return;
  try {
    const text = await askText(`api/dashboard/tasks/${encodeURIComponent(id)}`);
    if (id !== shown) return;
    const task = JSON.parse(text);
    status = task.status;
    fill(drawer, view(task, valuesIn(text)));
  } catch (error) {
    if (id === shown) tellMissing(error);
  }
}

function tellMissing({ status: code = "no connection" }) {
  if (code === 404) setText(byId("drawer-title"), "No such task");
  setText(note, code === 404 ? note.dataset.missing : `The hub did not answer (${code}); what stands here may be old.`);
}

// `texts`: of each value of the task the hub's own JSON.
function view(task, texts) {
  const { status: is, description, metadata, result, history: steps } = task;
  const isDead = is === "dead_letter";
  return {
    ...task, ...actsOn(task),
    hasTokens: task.tokens_used !== null,
    word: is.replace("_", " "),
    title: isVisible(description) ? shorten(plain(description).trim().split("\n", 1)[0], LONGEST_TITLE) : task.id,
    failed: isDead ? "Error" : "Error of the last failed attempt",
    with: is === "assigned" ? "With" : "Last with",
    copied: `dashboard/submit?copy=${task.id}`,
    losses: `${count(task.reclaim_count)} of ${count(task.max_reclaims)}`,
    rejections: `${count(task.rejection_count)} of ${count(task.max_rejections)}`,
    attempts: `${count(task.retry_count)} of ${count(Math.max(1, task.max_retries))}`,
    metadata: Object.keys(metadata ?? {}).length > 0 && texts.metadata,
    result: result && texts.result,
    isForgotten: !steps?.length,
    history: steps?.map((entry, index) => viewStep(entry, steps[index - 1])),
  };
}

function viewStep(entry, before) {
  const { event, timestamp } = entry;
  const moment = absolute(timestamp);
  return {
    ...entry, moment,
    ...wordsOf(event),
    at: new Date(timestamp).toISOString(),
    when: before ? `${duration(timestamp - before.timestamp)} later` : moment,
    by: byWhom(entry),
    detail: detailOf(event, entry.details),
  };
}

// Browsers give the clipboard only to pages over HTTPS or on localhost; elsewhere one key is left to press.
async function copyId() {
  try {
    await navigator.clipboard.writeText(shown);
    setText(note, note.dataset.copied);
  } catch {
    getSelection().selectAllChildren(byId("drawer-id"));
    setText(note, note.dataset.selected);
  }
}
