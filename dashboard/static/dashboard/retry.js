// Retrying a dead letter: one click, one answer, told at the row.

const ANSWER_MS = 10_000;

const REFUSED = {
  not_found: "Not retried: it is no longer in the dead letter.",
  unavailable: "Not retried: the hub cannot write just now. Try again.",
};

export class Retries {
  #waiting = new Map(); // task id → timer

  /** `send(message)` is true when it went out; `tell(taskId, outcome)` shows `{text, state}` to people. */
  constructor({ send, tell }) {
    this.send = send;
    this.tell = tell;
  }

  /** Ask the hub to put the task back into its queue. */
  ask(taskId) {
    if (this.#waiting.has(taskId)) return;
    if (!this.send({ type: "retry_task", task_id: taskId })) {
      this.tell(taskId, { state: "failed", text: "Not retried: there is no connection to the hub." });
      return;
    }
    const timer = setTimeout(() => this.#end(taskId, "failed", "No answer from the hub. Try again."), ANSWER_MS);
    this.#waiting.set(taskId, timer);
    this.tell(taskId, { state: "waiting", text: "Retrying…" });
  }

  /** The hub's `retry_result`. */
  answered({ task_id: taskId, status }) {
    if (status === "requeued") this.#end(taskId, "requeued", "Back in the queue.");
    else this.#end(taskId, "failed", REFUSED[status] ?? `Not retried: the hub says “${status}”.`);
  }

  /** The connection broke: whether the hub heard the question is unknown, and is said so. */
  abandon() {
    for (const taskId of [...this.#waiting.keys()]) {
      this.#end(taskId, "failed", "Connection lost before the answer. If it is still here, try again.");
    }
  }

  #end(taskId, state, text) {
    if (!this.#waiting.has(taskId)) return;
    clearTimeout(this.#waiting.get(taskId));
    this.#waiting.delete(taskId);
    this.tell(taskId, { state, text });
  }
}
