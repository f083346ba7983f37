// The task drawer: everything known about one task, at an address of its own, `?task=ID`.

import { ask, Paced } from "../ask.js";
import { taskAddress } from "../dom.js";
import { setText } from "./rows.js";
import { sections } from "./task.js";

const REFRESH_MS = 500;
const WAITING_MS = 5_000; // why a task waits changes without an event of its own

const drawer = document.querySelector("#drawer");
const part = (name) => document.querySelector(`#drawer-${name}`);
const pace = new Paced(load, REFRESH_MS);

let shown = null; // the id of the task that is open
let opener = null; // the link that led here, to come back to
let status = null;
let said = null; // the answer that is shown

export function start({ onFrame }) {
  document.addEventListener("click", followLink);
  document.addEventListener("open-task", ({ detail }) => open(detail.id ?? detail));
  addEventListener("popstate", followAddress);
  drawer.addEventListener("close", leave);
  document.addEventListener("keydown", ({ key }) => {
    if (key === "Escape" && drawer.open && !document.querySelector("dialog:modal")) drawer.close();
  });
  part("close").addEventListener("click", () => drawer.close());
  part("retry").addEventListener("click", retry);
  onFrame("events", ({ data }) => {
    if (shown && data.some((event) => event.task_id === shown)) pace.want();
  });
  onFrame("snapshot", () => status && pace.want()); // who knows what happened meanwhile
  setInterval(() => status === "queued" && pace.want(), WAITING_MS);
  followAddress();
}

function followLink(event) {
  const link = event.target.closest?.('a[href^="?task="]');
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  open(addressed(link.search), link);
}

function addressed(search) {
  return new URLSearchParams(search).get("task");
}

function open(id, link = document.activeElement) {
  if (id === shown) return;
  if (!shown) opener = link;
  // One step back closes the drawer, however many tasks were looked at in it.
  if (shown) history.replaceState(history.state, "", taskAddress(id));
  else history.pushState({ drawer: true }, "", taskAddress(id));
  show(id);
}

function followAddress() {
  const id = addressed(location.search);
  if (id) show(id);
  else if (drawer.open) drawer.close();
}

function show(id) {
  shown = id;
  status = said = null;
  setText(part("id"), id);
  setText(part("title"), "…");
  setText(part("status"), "");
  setText(part("note"), "");
  part("status").dataset.status = "";
  part("retry").hidden = true;
  part("body").replaceChildren();
  if (!drawer.open) drawer.show();
  part("title").focus();
  load();
}

// However it was closed: by the button, by Escape or by going back.
function leave() {
  shown = null;
  status = null;
  if (addressed(location.search)) {
    if (history.state?.drawer) history.back();
    else history.replaceState(null, "", location.pathname); // it was opened by its address
  }
  const place = opener?.isConnected ? opener : document.querySelector("#content");
  place.focus();
  opener = null;
}

async function load() {
  const id = shown;
  if (!id) return;
  try {
    const task = await ask(`/api/dashboard/tasks/${encodeURIComponent(id)}`);
    if (id === shown) fill(task);
  } catch (error) {
    if (id === shown) tellMissing(error);
  }
}

function tellMissing({ status: code }) {
  if (code === 404) {
    setText(part("title"), "No such task");
    setText(part("note"), "The hub knows no task of this id. Finished tasks are removed after a while.");
  } else {
    setText(part("note"), `The hub did not answer (${code ?? "no connection"}); what stands here may be old.`);
  }
}

function fill(task) {
  const says = JSON.stringify(task);
  if (says === said) return; // the reader's place and selection stay as they are
  said = says;
  status = task.status;
  const word = task.status.replace("_", " ");
  const [first] = task.description.trim().split("\n", 1);
  setText(part("title"), first.length > 160 ? `${[...first].slice(0, 160).join("")}…` : first);
  setText(part("status"), word);
  part("status").dataset.status = task.status;
  part("retry").hidden = task.status !== "dead_letter";
  part("body").replaceChildren(...sections(task));
}

function retry() {
  const told = ({ text }) => setText(part("note"), text);
  setText(part("note"), "Retrying…");
  document.dispatchEvent(new CustomEvent("retry-task", { detail: { id: shown, told } }));
}
