// Throughput over time: three charts, of the last hour or the last day.

import { paced } from "../ask.js";
import { Chart, timeOf } from "../charts.js";
import { hubTime } from "../clock.js";
import { byId, onClick, press, setText } from "../dom.js";
import { History } from "../history.js";

const DRAW_MS = 1_000;
const RELOAD_MS = 60_000;

const place = byId("charts");
const range = byId("chart-range");
const note = byId("chart-note");
const charts = [...place.children].map((element) => new Chart(element, { source: place.dataset.library, onPoint: tellTime }));
const wantDrawing = paced(draw, DRAW_MS);
const wantHistory = paced(load, DRAW_MS);

let history = new History(60);
let depth = null;

export function start({ onState, onFrame }) {
  onState(["queue"], ({ queue }) => {
    depth = queue.by_status.queued;
    history.measure(hubTime(), depth);
    wantDrawing();
  });
  onFrame("snapshot", wantHistory);
  onFrame("events", ({ data }) => {
    history.hear(data);
    wantDrawing();
  });
  setInterval(wantHistory, RELOAD_MS);
  onClick(range, "button", ({ dataset: { minutes } }) => {
    press(range, "minutes", minutes);
    history = new History(minutes);
    load();
  });
  document.addEventListener("theme-changed", () => charts.forEach((chart) => chart.recolour()));
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
  const columns = history.columns();
  if (columns.at.length) await Promise.all(charts.map((chart) => chart.show(columns)));
}

function tellTime(seconds) {
  setText(note, seconds ? `at ${timeOf(seconds)}` : "");
}
