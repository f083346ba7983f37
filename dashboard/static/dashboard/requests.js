// Questions over the socket, each about one thing: asked once, and told how it ended in any case.

import { byId } from "./dom.js";

const ANSWER_MS = 10_000;

// What is said where no answer came; the next question would fare no better.
const silences = byId("silences").dataset;

export class Requests {
  #waiting = new Map(); // id → {promise, resolve, timer}

  /**
   * The message is `{type, [key]: id}`; `send` is true when it went out. The status `done` is the good
   * answer; `texts` has what is said of it, of other answers, and of `waiting`.
   * `tell(id, {state: "waiting"|"failed"|done, text, hubAway})` shows an outcome to people.
   */
  constructor({ type, key, done, texts, send, tell }) {
    Object.assign(this, { type, key, done, texts, send, tell });
  }

  /** Ask the hub about `id`; resolves to the outcome, which is also told. */
  ask(id) {
    if (this.#waiting.has(id)) return this.#waiting.get(id).promise;
    const { promise, resolve } = Promise.withResolvers();
    const timer = setTimeout(() => this.#end(id, "unanswered"), ANSWER_MS);
    this.#waiting.set(id, { promise, resolve, timer });
    this.tell(id, { state: "waiting", text: this.texts.waiting });
    if (!this.send({ type: this.type, [this.key]: id })) this.#end(id, "unsent");
    return promise;
  }

  /** The hub's answer. */
  answered(frame) {
    this.#end(frame[this.key], frame.status);
  }

  /** The connection broke. */
  abandon() {
    for (const id of [...this.#waiting.keys()]) this.#end(id, "lost");
  }

  #end(id, status) {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    clearTimeout(waiting.timer);
    this.#waiting.delete(id);
    const outcome = {
      state: status === this.done ? status : "failed",
      text: this.texts[status] ?? silences[status] ?? `The hub says “${status}”.`,
      hubAway: status in silences,
    };
    this.tell(id, outcome);
    waiting.resolve(outcome);
  }
}
