// The header's figures: how long the hub has been up, and how many agents are in which state.

import { showAge } from "../clock.js";
import { count } from "../format.js";
import { setText } from "./rows.js";
import { setTitle } from "./title.js";

const uptime = document.querySelector("#uptime");
const states = [...document.querySelectorAll("#fleet [data-state]")];

export function start({ onState }) {
  onState((state, previous) => {
    if (state.uptime_ms !== previous?.uptime_ms) showAge(uptime, state.timestamp - state.uptime_ms);
    if (state.agents !== previous?.agents || state.offline_agents !== previous?.offline_agents) showFleet(state);
  });
}

function showFleet({ agents, offline_agents: lost }) {
  const numbers = { offline: lost.length };
  for (const { fsm_state: state } of agents) numbers[state] = (numbers[state] ?? 0) + 1;
  for (const element of states) {
    const number = numbers[element.dataset.state] ?? 0;
    setText(element.querySelector("b"), count(number));
    element.classList.toggle("none", number === 0);
  }
  setText(document.querySelector("#connected"), count(agents.length));
  setTitle({ blocked: numbers.blocked ?? 0 });
}
