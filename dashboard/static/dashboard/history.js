// The history of throughput: fetched, and kept current by events in between. Times are ms.

import { ask } from "./ask.js";

const COUNTED = { task_complete: "completed", task_failed: "failed" };

export class History {
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
