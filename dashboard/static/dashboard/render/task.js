// One task in full, as the drawer's template shows it.

import { absolute, count, duration } from "../format.js";
import { LANES, detailOf, wordsOf } from "../words.js";

const LONGEST_TITLE = 160;

/** What the template needs to know besides what the hub says of the task. */
export function viewTask(task) {
  const { status, description, metadata, tokens_used: tokens, history } = task;
  const isDead = status === "dead_letter";
  return {
    ...task, isDead,
    word: status.replace("_", " "),
    title: titleIn(description),
    failed: isDead ? "Error" : "Error of the last failed attempt",
    lane: LANES[task.priority],
    with: status === "assigned" ? "With" : "Last with",
    attempts: `${count(task.retry_count)} of ${count(Math.max(1, task.max_retries))}`,
    needs: task.needed_capabilities.join(", "),
    tokens: tokens === null ? "" : count(tokens),
    metadata: Object.keys(metadata ?? {}).length > 0 && metadata,
    isForgotten: !history?.length,
    history: history?.map((entry, index) => viewStep(entry, history[index - 1])),
  };
}

function titleIn(description) {
  const first = [...description.trim().split("\n", 1)[0]];
  return first.length > LONGEST_TITLE ? `${first.slice(0, LONGEST_TITLE).join("")}…` : first.join("");
}

function viewStep({ event, agent_id, timestamp, details }, before) {
  const moment = absolute(timestamp);
  return {
    event, agent_id, moment,
    ...wordsOf(event),
    at: new Date(timestamp).toISOString(),
    when: before ? `${duration(timestamp - before.timestamp)} later` : moment,
    detail: detailOf(event, details),
  };
}
