// The dead letters by cause: open one to see its tasks, retry one of them or all (retryall.js).

import { ask, pages, paced } from "../ask.js";
import { byId, onClick, setText } from "../dom.js";
import { count, plural, shorten } from "../format.js";
import { learn, nameOf } from "../words.js";
import * as retryAll from "./retryall.js";
import { Rows } from "./rows.js";

const PATH = "api/dashboard/dead-letters";
const PAGE = 50;
const REFRESH_MS = 1_500;

const list = byId("group-rows");
const groups = new Rows(list, byId("group-template"), { idOf: ({ group }) => group, view });
const opened = new Map(); // group → the rows of its tasks

/** See rows.js. A task that failed again is another row: what the old one says is past. */
export const DEAD_ROWS = {
  idOf: ({ id, failed_at: at }) => `${id}:${at}`,
  view: (task) => ({
    ...task,
    retry: `Retry ${nameOf(task.id)}`,
    tried: [plural(task.retry_count, "attempt"), task.agent_id].filter(Boolean).join(" · "),
  }),
};

let known = []; // the groups as the hub told them last
let changed = null;

export function start({ retries, onChange }) {
  changed = onChange;
  retryAll.start({ retries, tasksOf, onEnd: refresh });
  const groupOf = (button) => button.closest("[data-row]").dataset.row;
  onClick(list, "[data-open]", (button) => toggle(groupOf(button)));
  onClick(list, "[data-more]", (button) => loadTasks(groupOf(button), PAGE));
  onClick(list, "[data-retry-group]", (button) => retryAll.propose(known.find(({ group }) => group === groupOf(button))));
}

export const refresh = paced(load, REFRESH_MS);

export function isKnown() {
  return known.length > 0;
}

async function load() {
  try {
    const before = known.map((group) => JSON.stringify(group));
    known = (await ask(PATH)).groups;
    groups.show(known);
    changed();
    for (const group of opened.keys()) if (!groups.get(group)) opened.delete(group);
    for (const group of known) {
      if (opened.has(group.group) && !before.includes(JSON.stringify(group))) await loadTasks(group.group);
    }
  } catch {
    // The newest are listed, and the next change asks again.
  }
}

function view(group) {
  const error = shorten(group.error);
  return {
    ...group,
    error: error || "no reason given",
    isMany: group.count > 1,
    others: group.agent_count - group.agents.length,
    retry: `Retry all ${count(group.count)}: ${error}`,
  };
}

function toggle(group) {
  const element = groups.get(group);
  const tasks = element.querySelector(".group-tasks");
  const opens = !opened.delete(group);
  element.querySelector("[data-open]").ariaExpanded = opens;
  tasks.parentElement.hidden = !opens;
  tasks.replaceChildren();
  if (!opens) return;
  opened.set(group, new Rows(tasks, byId("group-task-template"), DEAD_ROWS));
  loadTasks(group, PAGE);
}

function tasksOf(group) {
  return pages(PATH, { group, limit: PAGE });
}

// As many as are listed, and `more`.
async function loadTasks(group, more = 0) {
  const rows = opened.get(group);
  const wanted = rows.container.childElementCount + more;
  const button = groups.get(group).querySelector("[data-more]");
  const tasks = [];
  try {
    for await (const page of tasksOf(group)) {
      learn(page.tasks);
      tasks.push(...page.tasks);
      button.hidden = !page.next_cursor;
      if (tasks.length >= wanted) break;
    }
    if (opened.get(group) === rows) rows.show(tasks); // else closed meanwhile
    setText(button, "Show more");
  } catch {
    setText(button, "The hub did not list them all: try again");
    button.hidden = false;
  }
}
