// Single numbers, wherever they stand: elements with `data-figure` are filled with the state (fill.js).

import { showAge } from "../clock.js";
import { byId } from "../dom.js";
import { fill } from "./fill.js";

const figures = [...document.querySelectorAll("[data-figure]")];

export function start({ onState }) {
  onState(["queue", "throughput", "agents_by_state"], showFigures);
  onState(["uptime_ms"], (state) => showAge(byId("uptime"), state.timestamp - state.uptime_ms));
}

function showFigures({ queue, throughput, agents_by_state: fleet }) {
  const { completed_last_hour, total_tokens_hour } = throughput;
  // An average of nothing is 0 on the wire; as a time it would be a lie.
  const honest = completed_last_hour ? throughput : { completed_last_hour, total_tokens_hour };
  const connected = Object.values(fleet).reduce((sum, each) => sum + each, 0) - fleet.offline;
  for (const element of figures) fill(element, { queue, throughput: honest, connected, fleet });
}
