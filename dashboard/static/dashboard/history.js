// The history of throughput: fetched from the hub, and kept current by the socket in between.
// Pure but for the question; times are ms, as everywhere on the wire.

import { address, ask } from "./ask.js";

export class History {
  /** Of the last `minutes`: 60 or 1440. */
  constructor(minutes) {
    this.minutes = minutes;
    this.points = [];
    this.step = 60_000;
  }

  async load() {
    const { points, step_s: step } = await ask(address("/api/dashboard/history", { minutes: this.minutes }));
    this.step = step * 1000;
    this.points = points;
  }

  /** Take in the events of a frame. */
  hear(events) {
    for (const event of events) {
      if (event.event === "task_complete") this.#count(event, "completed");
      if (event.event === "task_failed") this.#count(event, "failed");
    }
  }

  /** How many wait at the moment `at`. */
  measure(at, depth) {
    if (this.points.length) this.#at(at).depth = depth;
  }

  /** `{at: [s], completed, failed, depth, p95}`, counts per minute. */
  columns() {
    const perMinute = 60_000 / this.step;
    const { points } = this;
    return {
      at: points.map((point) => point.at / 1000),
      completed: points.map((point) => point.completed * perMinute),
      failed: points.map((point) => point.failed * perMinute),
      depth: points.map((point) => point.depth),
      p95: points.map((point) => point.p95_ms || null),
    };
  }

  #count({ timestamp, duration_ms: ms }, outcome) {
    if (!this.points.length) return;
    const point = this.#at(timestamp);
    point[outcome] += 1;
    // Until the hub is asked again, the slowest heard of stands for the slow ones of a new point.
    if (outcome === "completed" && point.isNew) point.p95_ms = Math.max(point.p95_ms, ms ?? 0);
  }

  // The point that holds `at`; new ones are added up to it, and the oldest leave.
  #at(at) {
    let last = this.points.at(-1);
    while (at >= last.at + this.step) {
      last = { at: last.at + this.step, completed: 0, failed: 0, depth: last.depth, p95_ms: 0, isNew: true };
      this.points = [...this.points.slice(1), last];
      }
    return this.points.findLast((point) => point.at <= at) ?? this.points[0];
  }
}
