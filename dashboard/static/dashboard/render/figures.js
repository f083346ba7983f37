// Single numbers: an element names the one it shows by its path in the state and how it is written,
// `data-figure="queue.dead_letter figure"`.

import { showAge } from "../clock.js";
import { byId, setText } from "../dom.js";
import { count } from "../format.js";
import { valueAt, write } from "./fill.js";

const figures = [...document.querySelectorAll("[data-figure]")];
const states = [...document.querySelectorAll("#fleet [data-state]")];

export function start({ onState }) {
  onState(["queue", "throughput", "agents"], (state) => figures.forEach((element) => tell(element, state)));
  onState(["uptime_ms"], (state) => showAge(byId("uptime"), state.timestamp - state.uptime_ms));
  onState(["agents", "offline_agents"], showFleet);
}

function tell(element, state) {
  const [path, format] = element.dataset.figure.split(" ");
  // An average of nothing is 0 on the wire; as a time it would be a lie.
  if (format === "duration" && !state.throughput.completed_last_hour) return setText(element, "–");
  write(element, state, path, format);
  if (format === "figure") element.title = count(valueAt(state, path));
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
