// Which agents the table lists, and in which order. Pure: nothing here touches the page.

import { compareText } from "./state.js";

// What wants a person's eye comes first.
const STATE_ORDER = ["blocked", "offline", "assigned", "working", "idle"];

// A column sorts by what `of` gives; `descending` is the direction that its first click takes.
export const COLUMNS = {
  name: { of: (agent) => nameOf(agent).toLowerCase() },
  state: { of: (agent) => STATE_ORDER.indexOf(agent.fsm_state) },
  task: { of: (agent) => agent.current_task_id ?? "" },
  capabilities: { of: (agent) => agent.capabilities.join(" ") },
  seen: { of: (agent) => agent.last_seen ?? 0, descending: true },
  completed: { of: (agent) => agent.completed_this_hour ?? -1, descending: true },
  failed: { of: (agent) => agent.failed_this_hour ?? -1, descending: true },
};

const haystacks = new WeakMap(); // row → the text that a filter looks into

/** What an agent is called. */
export function nameOf(agent) {
  return agent.name || agent.agent_id;
}

/** The connected and the lost, as rows of one list; a lost one says so in its `fsm_state`. */
export function everyone({ agents, offline_agents: lost }) {
  return [...agents, ...lost.map(asLost)];
}

/** Those of `agents` in which every word of `filter` occurs: in name, id, state, capability or task. */
export function matching(agents, filter) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return agents;
  return agents.filter((agent) => {
    const text = haystack(agent);
    return words.every((word) => text.includes(word));
  });
}

/** `agents`, sorted in place by `{column, descending}`; equals go by their ids. */
export function sorted(agents, { column, descending }) {
  const { of } = COLUMNS[column];
  const direction = descending ? -1 : 1;
  const compare = typeof of(SAMPLE) === "string" ? compareText : (a, b) => a - b;
  const keyed = agents.map((agent) => ({ agent, key: of(agent) }));
  keyed.sort((a, b) => direction * compare(a.key, b.key) || compareText(a.agent.agent_id, b.agent.agent_id));
  return keyed.map(({ agent }) => agent);
}

const SAMPLE = { agent_id: "", capabilities: [] };
const lostRows = new WeakMap(); // the hub's row → ours, so that an unchanged row stays the same object

function asLost(agent) {
  if (!lostRows.has(agent)) {
    lostRows.set(agent, { ...agent, fsm_state: "offline", last_state_change: agent.last_seen });
  }
  return lostRows.get(agent);
}

function haystack(agent) {
  if (!haystacks.has(agent)) {
    const { agent_id: id, name, fsm_state: state, current_task_id: task, capabilities } = agent;
    haystacks.set(agent, [id, name, state, task ?? "", ...capabilities].join("\n").toLowerCase());
  }
  return haystacks.get(agent);
}
