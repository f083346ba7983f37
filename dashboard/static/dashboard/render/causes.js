// The dead letters by cause: open one to see its tasks, retry one of them or all.

import { address, ask, Paced } from "../ask.js";
import { showAge } from "../clock.js";
import { count, plural, shorten } from "../format.js";
import { GroupRetry } from "../retrygroup.js";
import { announce } from "./announcement.js";
import { fillDead } from "./deadrow.js";
import { Rows, field, setText } from "./rows.js";

const ADDRESS = "/api/dashboard/dead-letters";
const PAGE = 50;
const REFRESH_MS = 1_500;
const TOLD_MS = 30_000; // how long the end of a run stays on the page

const list = document.querySelector("#group-rows");
const part = (name) => document.querySelector(`#retry-${name}`);
const groups = new Rows(list, document.querySelector("#group-template"), { key: "group", idOf: (group) => group.group, fill: fillGroup });
const opened = new Map(); // group → {rows, most}: its tasks, and how many of them to list
const pace = new Paced(load, REFRESH_MS);

let known = []; // the groups as the hub told them last
let changed = () => {};
let run = null;

export function start({ retries, onChange }) {
  changed = onChange;
  list.addEventListener("click", ({ target }) => {
    const group = target.closest("[data-group]")?.dataset.group;
    if (target.closest("[data-open]")) toggle(group);
    if (target.closest("[data-more]")) more(group);
    if (target.closest("[data-retry-group]")) question(known.find((each) => each.group === group));
  });
  part("dialog").addEventListener("close", () => {
    const { returnValue, group } = part("dialog");
    if (returnValue === "retry") retryAll(retries, group);
  });
  part("stop").addEventListener("click", () => run?.stop());
}

export function refresh() {
  pace.want();
}

export function isKnown() {
  return known.length > 0;
}

/** The element that shows this task in an opened group. */
export function rowOf(taskId) {
  for (const { rows } of opened.values()) if (rows.get(taskId)) return rows.get(taskId);
  return undefined;
}

async function load() {
  try {
    const before = new Map(known.map((group) => [group.group, JSON.stringify(group)]));
    known = (await ask(ADDRESS)).groups;
    groups.show(known);
    for (const gone of opened.keys()) if (!groups.get(gone)) opened.delete(gone);
    changed();
    for (const group of known) {
      if (opened.has(group.group) && before.get(group.group) !== JSON.stringify(group)) await loadTasks(group.group);
    }
  } catch {
    // The newest are listed all the same; the next change asks again.
  }
}

function fillGroup(element, group) {
  setText(field(element, "count"), count(group.count));
  setText(field(element, "error"), shorten(group.error) || "no reason given");
  showAge(field(element, "last"), group.last_at);
  showAge(field(element, "first"), group.first_at);
  field(element, "first").hidden = group.count < 2;
  const others = group.agent_count - group.agents.length;
  setText(field(element, "agents"), [" · ", group.agents.join(", "), others > 0 ? ` and ${count(others)} more` : ""].join(""));
  element.querySelector("[data-retry-group]").setAttribute("aria-label", `Retry all ${count(group.count)}: ${shorten(group.error)}`);
}

function toggle(group) {
  const element = groups.get(group);
  const opens = !opened.has(group);
  element.querySelector("[data-open]").ariaExpanded = String(opens);
  field(element, "tasks").hidden = !opens;
  if (!opens) {
    opened.get(group).rows.show([]);
    opened.delete(group);
    return;
  }
  const rows = new Rows(element.querySelector(".group-tasks"), document.querySelector("#group-task-template"), {
    key: "task", idOf: (task) => task.id, fill: fillTask,
  });
  opened.set(group, { rows, most: PAGE });
  loadTasks(group);
}

function more(group) {
  const open = opened.get(group);
  open.most = open.rows.container.childElementCount + PAGE;
  loadTasks(group);
}

async function loadTasks(group) {
  const open = opened.get(group);
  const button = groups.get(group).querySelector("[data-more]");
  const tasks = [];
  let cursor = null;
  try {
    do {
      const page = await ask(address(ADDRESS, { group, limit: PAGE, cursor }));
      tasks.push(...page.tasks);
      cursor = page.next_cursor;
    } while (cursor && tasks.length < open.most);
    if (opened.get(group) !== open) return; // closed meanwhile
    open.rows.show(tasks);
    setText(button, "Show more");
    button.hidden = !cursor;
  } catch {
    setText(button, "The hub did not list them all: try again");
    button.hidden = false;
  }
}

function fillTask(row, task) {
  fillDead(row, task);
  setText(field(row, "attempts"), [plural(task.retry_count, "attempt"), task.agent_id].filter(Boolean).join(" · "));
}

function question(group) {
  if (run) {
    announce("Another group is being retried: wait for it, or stop it.");
    return part("stop").focus();
  }
  part("dialog").group = group;
  part("dialog").returnValue = "";
  setText(part("question"), group.count === 1 ? "Retry this 1 task?" : `Retry these ${count(group.count)} tasks?`);
  setText(part("cause"), shorten(group.error));
  setText(part("confirm"), `Retry ${plural(group.count, "task")}`);
  part("dialog").showModal();
}

async function retryAll(retries, { group, count: total }) {
  run = new GroupRetry(retries, { group, count: total, tell: showRun });
  part("run").hidden = false;
  part("stop").hidden = false;
  showRun(run.progress);
  await run.run();
  run = null;
  if (document.activeElement === part("stop")) document.querySelector("#dead-title").focus();
  part("stop").hidden = true;
  setTimeout(() => { part("run").hidden = run === null; }, TOLD_MS);
  announce(part("told").textContent);
  refresh();
}

const ENDS = { running: "", done: "Done: ", stopped: "Stopped: ", failed: "Broken off: " };

function showRun({ state, done, refused, total, text }) {
  part("run").dataset.state = state;
  part("progress").max = total;
  part("progress").value = done + refused;
  const figures = `${count(done)} of ${count(total)} back in the queue`;
  setText(part("told"), [ENDS[state] + figures, refused && `${count(refused)} refused`, text].filter(Boolean).join(" · "));
}
