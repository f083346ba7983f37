// Single numbers: an element names the one it shows by its path in the state, `data-figure="queue.dead_letter"`.

import { count, duration, figure } from "../format.js";
import { setText } from "./rows.js";

const figures = [...document.querySelectorAll("[data-figure]")];
const bars = [...document.querySelectorAll("[data-lane]")];

export function start({ onState }) {
  onState(renderFigures);
}

function renderFigures(state, previous) {
  if (state.queue !== previous?.queue || state.throughput !== previous?.throughput) {
    for (const element of figures) tell(element, state);
    drawLanes(state.queue.by_priority);
  }
}

function tell(element, state) {
  const value = element.dataset.figure.split(".").reduce((part, key) => part?.[key], state);
  if (element.dataset.format === "duration") {
    // An average of nothing is 0 on the wire; as a time it would be a lie.
    setText(element, state.throughput.completed_last_hour ? duration(value) : "–");
  } else {
    setText(element, figure(value));
    element.title = count(value);
  }
}

function drawLanes(lanes) {
  const longest = Math.max(...Object.values(lanes));
  for (const bar of bars) {
    const share = longest ? Math.round((100 * lanes[bar.dataset.lane]) / longest) : 0;
    bar.setAttribute("width", `${share}%`);
  }
}
