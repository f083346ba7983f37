// Agents as the table lists, filters and sorts them. Pure: nothing here touches the page.

import { once } from "./dom.js";

// What wants a person's eye comes first.
const STATE_ORDER = ["blocked", "offline", "assigned", "working", "idle"];

const connected = once(listed);
const lost = once((agent) => listed({ ...agent, fsm_state: "offline", last_state_change: agent.last_seen }));

/** The connected and the lost, as rows of one list; a lost one says so in its `fsm_state`. */
export function everyone({ agents, offline_agents: gone }) {
  return [...agents.map(connected), ...gone.map(lost)];
}

function listed(agent) {
  const { agent_id: id, fsm_state: state, current_task_id: task, capabilities } = agent;
  const name = agent.name || id;
  const skills = capabilities.join(", ");
  return {
    ...agent, name, skills,
    named: name !== id && id,
    title: name === id ? name : `${name} (${id})`, // the cell may be too narrow
    isLost: state === "offline",
    isFree: state !== "offline" && !task,
    byName: name.toLowerCase(),
    byState: STATE_ORDER.indexOf(state),
    searched: [id, name, state, task, skills].join("\n").toLowerCase(),
  };
}

/** Those of `rows` in which every word of `filter` occurs: in name, id, state, capability or task. */
export function matching(rows, filter) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter(({ searched }) => words.every((word) => searched.includes(word)));
}
