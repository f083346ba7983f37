// Retrying a dead letter: one question, one answer, told at the row.

const ANSWER_MS = 10_000;

const REFUSED = {
  not_found: { text: "Not retried: it is no longer in the dead letter." },
  unavailable: { text: "Not retried: the hub cannot write just now. Try again.", hubAway: true },
};

export class Retries {
  #waiting = new Map(); // task id → {timer, quiet, promise, resolve}

  /** `send(message)` is true when it went out; `tell(taskId, outcome)` shows an outcome to people. */
  constructor({ send, tell }) {
    this.send = send;
    this.tell = tell;
  }

  /**
   * Ask the hub to put the task back into its queue. Resolves to the outcome, which is also told:
   * `{state: "requeued"|"failed", text, hubAway, quiet}`; `hubAway`: the next one would fare no better.
   */
  ask(taskId, { quiet = false } = {}) {
    if (this.#waiting.has(taskId)) return this.#waiting.get(taskId).promise;
    const { promise, resolve } = withResolver();
    const timer = setTimeout(
      () => this.#end(taskId, "failed", { text: "No answer from the hub. Try again.", hubAway: true }),
      ANSWER_MS,
    );
    this.#waiting.set(taskId, { timer, quiet, promise, resolve });
    this.tell(taskId, { state: "waiting", text: "Retrying…", quiet });
    if (!this.send({ type: "retry_task", task_id: taskId })) {
      this.#end(taskId, "failed", { text: "Not retried: there is no connection to the hub.", hubAway: true });
    }
    return promise;
  }

  /** The hub's `retry_result`. */
  answered({ task_id: taskId, status }) {
    if (status === "requeued") this.#end(taskId, "requeued", { text: "Back in the queue." });
    else this.#end(taskId, "failed", REFUSED[status] ?? { text: `Not retried: the hub says “${status}”.` });
  }

  /** The connection broke: whether the hub heard the question is unknown, and is said so. */
  abandon() {
    const text = "Connection lost before the answer. If it is still here, try again.";
    for (const taskId of [...this.#waiting.keys()]) this.#end(taskId, "failed", { text, hubAway: true });
  }

  #end(taskId, state, told) {
    const waiting = this.#waiting.get(taskId);
    if (!waiting) return;
    clearTimeout(waiting.timer);
    this.#waiting.delete(taskId);
    const outcome = { state, quiet: waiting.quiet, hubAway: false, ...told };
    this.tell(taskId, outcome);
    waiting.resolve(outcome);
  }
}

function withResolver() {
  let resolve;
  const promise = new Promise((settle) => { resolve = settle; });
  return { promise, resolve };
}
