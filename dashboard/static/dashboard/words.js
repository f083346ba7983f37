// What happens, in words: for the feed of everything and for the history of one task.

import { count, duration } from "./format.js";

export const LANES = ["urgent", "high", "normal", "low"];

// `did`: what the agent does with the task. `was`: what becomes of the task, where no agent is the subject.
const EVENTS = {
  task_submitted: { step: "Submitted", was: "was submitted" },
  task_assigned: { step: "Assigned", did: "got" },
  task_accepted: { step: "Started", did: "started" },
  task_progress: { step: "Progress", did: "is working on" },
  task_blocked: { step: "Blocked", did: "waits for a person with", tone: "warning" },
  task_unblocked: { step: "Unblocked", did: "goes on with" },
  task_complete: { step: "Completed", did: "completed", tone: "ok" },
  task_failed: { step: "Failed", did: "failed at", tone: "critical" },
  task_retried: { step: "Back in the queue", was: "goes back to the queue" },
  task_rejected: { step: "Refused", did: "refused", tone: "warning" },
  task_reclaimed: { step: "Taken back", was: "was taken back", tone: "warning" },
  task_dead_letter: { step: "Dead letter", was: "went to the dead letter", tone: "critical" },
};

/** `{step, did or was, tone}` of a kind of event; one that is not known is called by its name. */
export function wordsOf(kind) {
  return EVENTS[kind] ?? { step: kind, was: kind, tone: undefined };
}

/** What an event tells besides who and what: how long, how far, why. Empty where there is nothing. */
export function detailOf(kind, about) {
  return parts(kind, about ?? {}).filter(Boolean).join(" · ");
}

function parts(kind, { duration_ms: ms, tokens_used: tokens, progress, message, error, reason, by_hand: byHand, priority, agent_id: agent }) {
  switch (kind) {
    case "task_submitted": return [LANES[priority]];
    case "task_complete": return [Number.isFinite(ms) && `in ${duration(ms)}`, tokens > 0 && `${count(tokens)} tokens`];
    case "task_progress": return [Number.isFinite(progress) && `${progress} %`, message];
    case "task_retried": return [byHand ? "retried by hand" : "another attempt"];
    case "task_reclaimed": return [agent && `from ${agent}`, reason];
    default: return [error, reason];
  }
}
