// Throughput over time: three charts, of the last hour or the last day.

import { ask, paced } from "../ask.js";
import { Chart } from "../charts.js";
import { hubTime } from "../clock.js";
import { byId, onClick, press, setText } from "../dom.js";
import { absolute } from "../format.js";

const COUNTED = { task_complete: "completed", task_failed: "failed" };
const DRAW_MS = 1_000;
const RELOAD_MS = 60_000;
const FEWEST_STEPS = 5; // of a hub that has just begun
const MOST_TIMES = 6; // below the charts
const TIMES_MIN = [1, 2, 5, 10, 15, 30, 60, 120, 240, 360]; // from one to the next

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

  /**
   * `{at: [s], completed, failed, depth, p95}`, counts per minute. A young hub's begin with its life: an
   * empty hour before it would leave no room to see it.
   */
  columns() {
    const perMinute = 60_000 / this.#step;
    const born = this.#points.findIndex(({ completed, failed, depth }) => completed || failed || depth !== null);
    const points = this.#points.slice(Math.min(Math.max(0, born), this.#points.length - FEWEST_STEPS));
    const column = (of) => points.map(of);
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

const range = byId("chart-range");
const note = byId("chart-note");
const times = byId("chart-times");
const charts = [...document.querySelectorAll("[data-chart]")].map((element) => new Chart(element, point));
const wantDrawing = paced(draw, DRAW_MS);
const wantHistory = paced(load, DRAW_MS);

let history = new History(60);
let depth = null;
let shown = { at: [] }; // the columns in the charts
let pointed = null; // the step that the mouse is at

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
}

async function load() {
  const asked = history;
  try {
    await asked.load();
    if (asked !== history) return;
    history.measure(hubTime(), depth);
    draw();
  } catch {
    setText(note, "no history from the hub");
  }
}

function draw() {
  const columns = history.columns();
  if (!columns.at.length) return;
  shown = columns;
  for (const chart of charts) chart.show(columns);
  times.replaceChildren(...timesBelow(columns.at));
  point(pointed);
}

// In all charts alike.
function point(step) {
  const { length } = shown.at;
  pointed = step === null ? null : Math.min(step, length - 1);
  for (const chart of charts) chart.point(pointed);
  setText(note, pointed === null ? "" : `at ${timeOf(shown.at[pointed])}${pointed === length - 1 ? ", so far" : ""}`);
}

// At whole hours and the like of the viewer's time zone.
function timesBelow(at) {
  const stepMin = (at[1] - at[0]) / 60;
  const every = TIMES_MIN.find((minutes) => (at.length * stepMin) / minutes <= MOST_TIMES);
  const localMin = (seconds) => seconds / 60 - new Date(seconds * 1000).getTimezoneOffset();
  return at.flatMap((seconds, step) => {
    if (localMin(seconds) % every) return [];
    const time = Object.assign(document.createElement("span"), { textContent: timeOf(seconds) });
    time.style.left = `${(100 * step) / at.length}%`;
    return [time];
  });
}

/** `HH:MM`, in the viewer's time zone. */
function timeOf(seconds) {
  return absolute(seconds * 1000).slice(11, 16);
}
