// Retrying all that died of one cause: one after the other, so that the queue is not flooded.

import { address, ask } from "./ask.js";

const PACE_MS = 50; // at most 20 a second
const PAGE = 50;

export class GroupRetry {
  #stopped = false;

  /** `tell({state: "running"|"done"|"stopped"|"failed", done, refused, total, text})` after every step. */
  constructor(retries, { group, count, tell }) {
    this.retries = retries;
    this.group = group;
    this.progress = { state: "running", done: 0, refused: 0, total: count, text: "" };
    this.tell = tell;
  }

  /** Retry at most as many as were agreed upon; what dies meanwhile is newer and is left alone. */
  async run() {
    try {
      for await (const id of this.#ids()) {
        if (this.#isOver()) break;
        await Promise.all([this.#retry(id), pause(PACE_MS)]);
        if (this.progress.state !== "running") return;
      }
      this.#change({ state: this.#stopped ? "stopped" : "done" });
    } catch (error) {
      this.#change({ state: "failed", text: `The hub did not list the tasks (${error.status ?? "no connection"}).` });
    }
  }

  /** No further one; the one under way still gets its answer. */
  stop() {
    this.#stopped = true;
  }

  #isOver() {
    return this.#stopped || this.progress.done + this.progress.refused >= this.progress.total;
  }

  async #retry(id) {
    const { state, text, hubAway } = await this.retries.ask(id, { quiet: true });
    if (state === "requeued") this.#change({ done: this.progress.done + 1 });
    else if (hubAway) this.#change({ state: "failed", text });
    else this.#change({ refused: this.progress.refused + 1 });
  }

  async *#ids() {
    let cursor = null;
    do {
      const page = await ask(address("/api/dashboard/dead-letters", { group: this.group, limit: PAGE, cursor }));
      for (const { id } of page.tasks) yield id;
      cursor = page.next_cursor;
    } while (cursor);
  }

  #change(difference) {
    Object.assign(this.progress, difference);
    this.tell(this.progress);
  }
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
