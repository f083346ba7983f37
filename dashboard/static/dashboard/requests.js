// Questions over the socket, each about one thing: asked once, and its end is always told.

import { byId } from "./dom.js";

const ANSWER_MS = 10_000;

// What is said where no answer came.
const silences = byId("silences").dataset;

export class Requests {
  #waiting = new Map(); // id → {promise, resolve, timer}

  /**
   * The message is `{type, [key]: id}`, the frame `answer` brings `{[key]: id, status}`, `done` is the good
   * status or some of them, `texts` has what is said of each and of `waiting`, and
   * `tell(id, {state: "waiting"|"failed"|done, text, hubAway})` shows it.
   */
  constructor({ send, onFrame, onStatus }, { type, answer, key, done, texts, tell }) {
    Object.assign(this, { send, type, key, done, texts, tell });
    onFrame(answer, (frame) => this.#end(frame[key], frame.status, frame.detail));
    onStatus(({ state }) => {
      if (state !== "live") for (const id of [...this.#waiting.keys()]) this.#end(id, "lost");
    });
  }

  /** Resolves to the outcome, which is also told. `more` are other fields of the message. */
  ask(id, more = {}) {
    if (this.#waiting.has(id)) return this.#waiting.get(id).promise;
    const { promise, resolve } = Promise.withResolvers();
    const timer = setTimeout(() => this.#end(id, "unanswered"), ANSWER_MS);
    this.#waiting.set(id, { promise, resolve, timer });
    this.tell(id, { state: "waiting", text: this.texts.waiting });
    if (!this.send({ type: this.type, [this.key]: id, ...more })) this.#end(id, "unsent");
    return promise;
  }

  #end(id, status, detail) {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    clearTimeout(waiting.timer);
    this.#waiting.delete(id);
    const outcome = {
      state: [this.done].flat().includes(status) ? status : "failed",
      text: this.texts[status] ?? silences[status] ?? detail ?? `The hub says “${status}”.`,
      hubAway: status in silences,
    };
    this.tell(id, outcome);
    waiting.resolve(outcome);
  }
}
