// What happens, in words: for the feed of everything and for the history of one task.

import { byId } from "./dom.js";
import { count, duration } from "./format.js";

export const LANES = ["urgent", "high", "normal", "low"];

const known = Object.fromEntries([...byId("words").content.children].map(({ dataset }) => [dataset.event, dataset]));

/** `{step, did, was, tone}` of a kind of event, see _words.html; one that is not known is called by its name. */
export function wordsOf(kind) {
  return known[kind] ?? { step: kind, was: kind };
}

/** What an event tells besides who and what: how long, how far, why. Empty where there is nothing. */
export function detailOf(kind, about) {
  return parts(kind, about ?? {}).filter(Boolean).join(" · ");
}

function parts(kind, { duration_ms: ms, tokens_used: tokens, progress, message, error, reason, agent_id: agent, ...about }) {
  switch (kind) {
    case "task_submitted": return [LANES[about.priority]];
    case "task_complete": return [Number.isFinite(ms) && `in ${duration(ms)}`, tokens > 0 && `${count(tokens)} tokens`];
    case "task_progress": return [Number.isFinite(progress) && `${progress} %`, message];
    case "task_retried": return [about.by_hand ? "retried by hand" : "another attempt"];
    case "task_reclaimed": return [agent && `from ${agent}`, reason];
    case "agent_joined": return [about.capabilities?.join(", ")];
    case "status_changed": return [about.status || "nothing any more"];
    case "health_changed": return [about.conditions?.join("; ")];
    default: return [error, reason];
  }
}
