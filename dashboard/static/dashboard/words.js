// What happens, in words, and what the tasks are called.

import { byId } from "./dom.js";
import { count, duration, isVisible, isolated, lane, list, plain, shorten } from "./format.js";

const known = Object.fromEntries([...byId("words").content.children].map(({ dataset }) => [dataset.event, dataset]));
const doers = byId("doers").dataset;

const PLACED = ["task_submitted", "task_reprioritized"]; // entries that put a task into a lane
const MOST_TITLES = 10_000;
const LONGEST_NAME = 60;
const titles = new Map(); // task id → title, the newest last

/** Comes before all that ask for titles. */
export function start({ onState, onFrame }) {
  for (const section of ["agents", "offline_agents", "recent_completions", "dead_letter_tasks"]) {
    onState([section], (state) => learn(state[section]));
  }
  onFrame("events", ({ data }) => learn(data));
}

/** Of events, tasks, and agents that hold one. */
export function learn(about) {
  for (const one of about) {
    const id = one.task_id ?? one.id ?? one.current_task_id;
    if (!id || titles.has(id)) continue;
    const title = plain(one.title ?? one.description ?? one.current_task_title ?? "");
    if (isVisible(title)) titles.set(id, title);
  }
  while (titles.size > MOST_TITLES) titles.delete(titles.keys().next().value);
}

/** What people call a task: by its id only where nothing else is known. */
export function titleOf(id) {
  return titles.get(id) ?? id;
}

/** In a sentence. */
export function nameOf(id) {
  return shorten(titleOf(id), LONGEST_NAME);
}

/** `{step, did, was, tone}`, see _words.html; a kind that is not known is called by its name. */
export function wordsOf(kind) {
  return known[kind] ?? { step: kind, was: kind };
}

/** Whose doing it was; nothing for the agent that is named, and for the hub. */
export function byWhom({ actor, agent_id: agent }) {
  const [, kind, name] = /(\w*):?(.*)/s.exec(actor ?? "");
  return actor === `agent:${agent}` ? "" : doers[kind]?.replace("NAME", () => isolated(name)) ?? "";
}

/** What an event tells besides who and what: how long, how far, why. */
export function detailOf(kind, about) {
  return parts(kind, about ?? {}).filter(Boolean).join(" · ");
}

function parts(kind, about) {
  const { duration_ms: ms, tokens_used: tokens, progress, reason, agent_id: agent } = about;
  switch (kind) {
    case "task_retried": return [about.by_hand ? "retried by hand" : "another attempt", byWhom(about)];
    case "task_reclaimed": return [agent && `from ${agent}`, reason];
    case "status_changed": return [about.status || "nothing any more"];
    default: return [
      PLACED.includes(kind) && lane(about.priority), Number.isFinite(ms) && `in ${duration(ms)}`, tokens > 0 && `${count(tokens)} tokens`,
      Number.isFinite(progress) && `${progress} %`, about.message, about.error, reason,
      list(about.capabilities), about.conditions?.join("; "), byWhom(about),
    ];
  }
}
