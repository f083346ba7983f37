// The dead letters by cause: open one to see its tasks, retry one of them or all (retryall.js).

import { ask, pages, paced } from "../ask.js";
import { byId, setText } from "../dom.js";
import { count, plural, shorten } from "../format.js";
import * as retryAll from "./retryall.js";
import { Rows } from "./rows.js";

const PATH = "/api/dashboard/dead-letters";
const PAGE = 50;
const REFRESH_MS = 1_500;

const list = byId("group-rows");
const groups = new Rows(list, byId("group-template"), { key: "group", idOf: ({ group }) => group, view });
const opened = new Map(); // group → {rows, most}: its tasks, and how many of them to list

/** Rows of dead tasks, see rows.js. One that failed again is another row: what the old one says is past. */
export const DEAD_ROWS = {
  key: "row",
  idOf: ({ id, failed_at: at }) => `${id}:${at}`,
  view: (task) => ({
    ...task,
    retry: `Retry ${task.id}`,
    tried: [plural(task.retry_count, "attempt"), task.agent_id].filter(Boolean).join(" · "),
  }),
};

let known = []; // the groups as the hub told them last
let changed = () => {};

export function start({ retries, onChange }) {
  changed = onChange;
  retryAll.start({ retries, tasksOf, onEnd: refresh });
  list.addEventListener("click", ({ target }) => {
    const group = target.closest("[data-group]")?.dataset.group;
    if (target.closest("[data-open]")) toggle(group);
    if (target.closest("[data-more]")) more(group);
    if (target.closest("[data-retry-group]")) retryAll.propose(known.find((each) => each.group === group));
  });
}

/** There are other dead letters than before. */
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
    // The newest are listed all the same; the next change asks again.
  }
}

function view(group) {
  const error = shorten(group.error);
  const others = group.agent_count - group.agents.length;
  return {
    ...group,
    error: error || "no reason given",
    isMany: group.count > 1,
    who: group.agents.join(", ") + (others > 0 ? ` and ${count(others)} more` : ""),
    retry: `Retry all ${count(group.count)}: ${error}`,
  };
}

function toggle(group) {
  const element = groups.get(group);
  const tasks = element.querySelector(".group-tasks");
  const opens = !opened.delete(group);
  element.querySelector("[data-open]").ariaExpanded = String(opens);
  tasks.parentElement.hidden = !opens;
  tasks.replaceChildren();
  if (!opens) return;
  opened.set(group, { rows: new Rows(tasks, byId("group-task-template"), DEAD_ROWS), most: PAGE });
  loadTasks(group);
}

function more(group) {
  const open = opened.get(group);
  open.most = open.rows.container.childElementCount + PAGE;
  loadTasks(group);
}

function tasksOf(group) {
  return pages(PATH, { group, limit: PAGE });
}

async function loadTasks(group) {
  const open = opened.get(group);
  const button = groups.get(group).querySelector("[data-more]");
  const tasks = [];
  try {
    for await (const page of tasksOf(group)) {
      tasks.push(...page.tasks);
      button.hidden = !page.next_cursor;
      if (tasks.length >= open.most) break;
    }
    if (opened.get(group) === open) open.rows.show(tasks); // else closed meanwhile
    setText(button, "Show more");
  } catch {
    setText(button, "The hub did not list them all: try again");
    button.hidden = false;
  }
}
