// Throughput over time: three charts, of the last hour or the last day.

import { Paced } from "../ask.js";
import { Chart, clock } from "../charts.js";
import { hubTime } from "../clock.js";
import { duration, figure } from "../format.js";
import { History } from "../history.js";
import { setText } from "./rows.js";

const DRAW_MS = 1_000;
const RELOAD_MS = 60_000;

const place = document.querySelector("#charts");
const range = document.querySelector("#chart-range");
const note = document.querySelector("#chart-note");

const brief = (value) => (value < 10 && value % 1 ? value.toFixed(1) : figure(Math.round(value)));
const short = (ms) => duration(Math.round(ms)).replace(/ min .*/, " min").replace(".0 s", " s");
const CHARTS = {
  ended: { names: ["completed", "failed"], write: brief, series: [{ colour: "--bar", fill: true, steps: true }, { colour: "--critical", dash: [4, 3], steps: true }] },
  depth: { names: ["depth"], write: brief, series: [{ colour: "--accent", fill: true }] },
  p95: { names: ["p95"], write: short, series: [{ colour: "--warning" }] },
};
const charts = Object.entries(CHARTS).map(([name, { names, write, series }]) => {
  const element = place.querySelector(`[data-chart="${name}"]`);
  const plot = element.querySelector(".plot");
  const library = { script: place.dataset.library, style: place.dataset.style };
  const shown = { names, write, element, plot, label: plot.getAttribute("aria-label") };
  shown.chart = new Chart(plot, { series, write, library, onPoint: (index) => tellPoint(shown, index) });
  return shown;
});

let columns = null; // what is drawn
let history = new History(60);
let depth = null;
const drawing = new Paced(draw, DRAW_MS);
const loading = new Paced(load, DRAW_MS);

export function start({ onState, onFrame }) {
  onState(({ queue }) => {
    depth = queue.by_status.queued;
    history.measure(hubTime(), depth);
    drawing.want();
  });
  onFrame("snapshot", () => loading.want());
  onFrame("events", ({ data }) => {
    history.hear(data);
    drawing.want();
  });
  setInterval(() => loading.want(), RELOAD_MS);
  range.addEventListener("click", ({ target }) => target.dataset.minutes && showRange(target));
  document.addEventListener("theme-changed", () => charts.forEach(({ chart }) => chart.recolour()));
}

function showRange(button) {
  for (const each of range.querySelectorAll("[data-minutes]")) each.ariaPressed = String(each === button);
  history = new History(Number(button.dataset.minutes));
  return load();
}

async function load() {
  const asked = history;
  try {
    await asked.load();
    if (asked !== history) return;
    history.measure(hubTime(), depth);
    await draw();
  } catch {
    setText(note, "no history from the hub");
  }
}

async function draw() {
  columns = history.columns();
  if (!columns.at.length) return;
  for (const shown of charts) {
    const { names, write, element, plot, label, chart } = shown;
    await chart.show([columns.at, ...names.map((name) => columns[name])]);
    element.dataset.points = JSON.stringify({ at: columns.at, ...Object.fromEntries(names.map((name) => [name, columns[name]])) });
    const figures = names.map((name) => `${name} ${say(current(name), write)}, at most ${say(Math.max(...columns[name]), write)}`);
    plot.setAttribute("aria-label", `${label}: ${figures.join("; ")}`);
    if (!plot.matches(":hover")) tellPoint(shown, null);
  }
}

// The caption says what the cursor stands on, and what is now when it does not.
function tellPoint({ names, write, element }, index) {
  if (!columns) return;
  for (const name of names) {
    const value = index === null ? current(name) : columns[name][index];
    setText(element.querySelector(`[data-latest="${name}"]`), say(value, write));
  }
  setText(note, index === null ? "" : `at ${clock(columns.at[index])}`);
}

// A rate is that of the last whole step: the one under way is not over, and would always look like a fall.
function current(name) {
  return columns[name].at(name === "depth" ? -1 : -2) ?? columns[name].at(-1);
}

function say(value, write) {
  return Number.isFinite(value) ? write(value) : "–";
}
