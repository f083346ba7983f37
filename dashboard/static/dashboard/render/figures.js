// Single numbers, wherever they stand: elements with `data-figure` are filled with the state (fill.js).

import { showAge } from "../clock.js";
import { byId, setText } from "../dom.js";
import { count } from "../format.js";
import { fill } from "./fill.js";

const figures = [...document.querySelectorAll("[data-figure]")];
const states = [...document.querySelectorAll("#fleet [data-state]")];

export function start({ onState }) {
  onState(["queue", "throughput", "agents"], showFigures);
  onState(["uptime_ms"], (state) => showAge(byId("uptime"), state.timestamp - state.uptime_ms));
  onState(["agents", "offline_agents"], showFleet);
}

function showFigures({ queue, throughput, agents }) {
  const { completed_last_hour, total_tokens_hour } = throughput;
  // An average of nothing is 0 on the wire; as a time it would be a lie.
  const honest = completed_last_hour ? throughput : { completed_last_hour, total_tokens_hour };
  for (const element of figures) fill(element, { queue, throughput: honest, agents });
}

function showFleet({ agents, offline_agents: lost }) {
  const numbers = { offline: lost.length };
  for (const { fsm_state: state } of agents) numbers[state] = (numbers[state] ?? 0) + 1;
  for (const element of states) {
    const number = numbers[element.dataset.state] ?? 0;
    setText(element.querySelector("b"), count(number));
    element.classList.toggle("none", number === 0);
  }
}
