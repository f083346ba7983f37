// Throughput over time: three charts, of the last hour or the last day.

import { ask, paced } from "../ask.js";
import { Chart, timeOf } from "../charts.js";
import { hubTime } from "../clock.js";
import { byId, onClick, press, setText } from "../dom.js";

const COUNTED = { task_complete: "completed", task_failed: "failed" };
const DRAW_MS = 1_000;
const RELOAD_MS = 60_000;

// Fetched, and kept current by events in between. Times are ms.
class History {
  #points = [];
  #step = 60_000;

  /** Of the last `minutes`: 60 or 1440. */
  constructor(minutes) {
    this.minutes = minutes;
  }

  async load() {
    const { points, step_s: step } = await ask("api/dashboard/history", { minutes: this.minutes });
    this.#step = step * 1000;
    this.#points = points;
  }

  hear(events) {
    if (!this.#points.length) return;
    for (const { event, timestamp, duration_ms: ms } of events) {
      if (!(event in COUNTED)) continue;
      const point = this.#at(timestamp);
      point[COUNTED[event]] += 1;
      // Until the hub is asked again, the slowest one stands for the slow ones.
      if (point.isNew && event === "task_complete") point.p95_ms = Math.max(point.p95_ms, ms ?? 0);
    }
  }

  /** At the moment `at`, so many wait. */
  measure(at, depth) {
    if (this.#points.length) this.#at(at).depth = depth;
  }

  /** `{at: [s], completed, failed, depth, p95}`, counts per minute. */
  columns() {
    const perMinute = 60_000 / this.#step;
    const column = (of) => this.#points.map(of);
    return {
      at: column((point) => point.at / 1000),
      completed: column((point) => point.completed * perMinute),
      failed: column((point) => point.failed * perMinute),
      depth: column((point) => point.depth),
      p95: column((point) => point.p95_ms || null),
    };
  }

  // New points are added up to `at`, and the oldest leave.
  #at(at) {
    let last = this.#points.at(-1);
    while (at >= last.at + this.#step) {
      last = { at: last.at + this.#step, completed: 0, failed: 0, depth: last.depth, p95_ms: 0, isNew: true };
      this.#points.push(last);
      this.#points.shift();
    }
    return this.#points.findLast((point) => point.at <= at) ?? this.#points[0];
  }
}

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
