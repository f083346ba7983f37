// Forgetting a lost agent: one click, one answer, told at the row.

const ANSWER_MS = 10_000;

const REFUSED = {
  agent_connected: "Not forgotten: it is connected again.",
  agent_holds_task: "Not forgotten: its task is taken back first. Try again in a moment.",
  agent_not_found: "The hub knows it no longer.",
  unavailable: "Not forgotten: the hub cannot write just now. Try again.",
};

export class Forgetting {
  #waiting = new Map(); // agent id → timer

  /** `send(message)` is true when it went out; `tell(agentId, outcome)` shows `{state, text}` to people. */
  constructor({ send, tell }) {
    this.send = send;
    this.tell = tell;
  }

  /** Ask the hub to forget the agent. */
  ask(agentId) {
    if (this.#waiting.has(agentId)) return;
    if (!this.send({ type: "forget_agent", agent_id: agentId })) {
      this.tell(agentId, { state: "failed", text: "There is no connection to the hub." });
      return;
    }
    const timer = setTimeout(() => this.#end(agentId, "failed", "No answer from the hub. Try again."), ANSWER_MS);
    this.#waiting.set(agentId, timer);
    this.tell(agentId, { state: "waiting", text: "Forgetting…" });
  }

  /** The hub's `forget_result`. */
  answered({ agent_id: agentId, status }) {
    if (status === "forgotten") this.#end(agentId, "forgotten", "Forgotten.");
    else this.#end(agentId, "failed", REFUSED[status] ?? `The hub says “${status}”.`);
  }

  /** The connection broke: whether the hub heard is unknown, and is said so. */
  abandon() {
    for (const agentId of [...this.#waiting.keys()]) {
      this.#end(agentId, "failed", "Connection lost before the answer. If it is still here, try again.");
    }
  }

  #end(agentId, state, text) {
    if (!this.#waiting.has(agentId)) return;
    clearTimeout(this.#waiting.get(agentId));
    this.#waiting.delete(agentId);
    this.tell(agentId, { state, text });
  }
}
