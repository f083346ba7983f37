// Throughput over time: three charts, of the last hour or the last day.

import { Paced } from "../ask.js";
import { Chart, clock } from "../charts.js";
import { hubTime } from "../clock.js";
import { byId, press, setText } from "../dom.js";
import { duration, figure } from "../format.js";
import { History } from "../history.js";

const DRAW_MS = 1_000;
const RELOAD_MS = 60_000;

const place = byId("charts");
const range = byId("chart-range");
const note = byId("chart-note");

const brief = (value) => (value < 10 && value % 1 ? value.toFixed(1) : figure(Math.round(value)));
const short = (ms) => duration(Math.round(ms)).replace(/ min .*/, " min").replace(".0 s", " s");
const charts = [
  shown("ended", brief, {
    completed: { colour: "--bar", fill: true, steps: true },
    failed: { colour: "--critical", dash: [4, 3], steps: true },
  }),
  shown("depth", brief, { depth: { colour: "--accent", fill: true } }),
  shown("p95", short, { p95: { colour: "--warning" } }),
];
const drawing = new Paced(draw, DRAW_MS);
const loading = new Paced(load, DRAW_MS);

let history = new History(60);
let columns = null; // what is drawn
let depth = null;

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
  range.addEventListener("click", ({ target: { dataset: { minutes } } }) => minutes && showRange(minutes));
  document.addEventListener("theme-changed", () => charts.forEach(({ chart }) => chart.recolour()));
}

function shown(name, write, series) {
  const element = place.querySelector(`[data-chart="${name}"]`);
  const plot = element.querySelector(".plot");
  const about = { element, plot, write, names: Object.keys(series), label: plot.ariaLabel };
  const onPoint = (index) => tellPoint(about, index);
  about.chart = new Chart(plot, { series: Object.values(series), write, addresses: place.dataset, onPoint });
  return about;
}

function showRange(minutes) {
  press(range, "minutes", minutes);
  history = new History(minutes);
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
  for (const about of charts) {
    const { names, write, element, plot, label, chart } = about;
    await chart.show([columns.at, ...names.map((name) => columns[name])]);
    element.dataset.points = JSON.stringify(columns, ["at", ...names]);
    const figures = names.map((name) => `${name} ${say(current(name), write)}, at most ${say(Math.max(...columns[name]), write)}`);
    plot.ariaLabel = `${label}: ${figures.join("; ")}`;
    if (!plot.matches(":hover")) tellPoint(about, null);
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
