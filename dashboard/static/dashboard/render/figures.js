// Single numbers, wherever they stand: elements with `data-figure` are filled with the state (fill.js).

import { showAge } from "../clock.js";
import { byId } from "../dom.js";
import { fill } from "./fill.js";

const figures = [...document.querySelectorAll("[data-figure]")];

export function start({ onState }) {
  onState(["queue", "throughput", "agents", "offline_agents"], showFigures);
  onState(["uptime_ms"], (state) => showAge(byId("uptime"), state.timestamp - state.uptime_ms));
}

function showFigures({ queue, throughput, agents, offline_agents: lost }) {
  const { completed_last_hour, total_tokens_hour } = throughput;
  // An average of nothing is 0 on the wire; as a time it would be a lie.
  const honest = completed_last_hour ? throughput : { completed_last_hour, total_tokens_hour };
  const fleet = { offline: lost.length };
  for (const { fsm_state: state } of agents) fleet[state] = (fleet[state] ?? 0) + 1;
  for (const element of figures) fill(element, { queue, throughput: honest, agents, fleet });
}
