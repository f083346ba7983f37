// The agents of a fleet that is too large to be sent at once: the hub sorts and filters, and sends a window
// around the rows that are looked at. Loaded only then.

import { ask, stateParameters } from "../ask.js";
import { learn } from "../words.js";

const COUNT = 200; // rows of a window, as many as the hub gives
const FILTER_MAX = 200; // characters

// What the heads of the table are called on the wire.
const SORTS = {
  byName: "name", byState: "state", byTask: "task", skills: "capabilities",
  last_seen: "last_seen", completed_this_hour: "completed", failed_this_hour: "failed",
};

/** `asRow(agent)` is what the table shows; `send(message)` says whether there was a socket to take it. */
export class RemoteAgents {
  #rows = new Map(); // id → row, of the window
  #window = { ids: [], from: 0, matching: 0, total: 0 };
  #sent = null;
  #asked = {};

  constructor({ asRow, send }) {
    Object.assign(this, { asRow, send });
  }

  get length() {
    return this.#window.matching;
  }

  get total() {
    return this.#window.total;
  }

  /** Which rows of `first` to `last` are there: `{start, rows}`. Others are asked for. */
  range(first, last) {
    const { from, ids, matching } = this.#window;
    const needed = Math.min(last, matching);
    if (first < from || needed > from + ids.length) this.#ask({ from: Math.max(0, Math.floor((first + last - COUNT) / 2)) });
    const start = Math.min(Math.max(first, from), last);
    return { start, rows: ids.slice(start - from, Math.max(0, last - from)).map((id) => this.#rows.get(id)) };
  }

  /** The head of the table that sorts, and the words of the filter. */
  order(head, filter) {
    const sort = (head.ariaSort === "descending" ? "-" : "") + SORTS[head.dataset.sort];
    const short = filter.slice(0, FILTER_MAX);
    if (sort !== this.#asked.sort || short !== this.#asked.filter) this.#ask({ sort, filter: short, from: 0 });
  }

  /** What the hub sent; nothing after a snapshot: it is a new socket, which has to be asked again. */
  take(sent) {
    if (!sent) this.#asked = {};
    if (!sent || sent === this.#sent) return;
    this.#sent = sent;
    learn(sent.rows);
    const news = new Map(sent.rows.map((agent) => [agent.agent_id, this.asRow(agent)]));
    this.#rows = new Map(sent.ids.map((id) => [id, news.get(id) ?? this.#rows.get(id)]));
    this.#window = { ...sent, ids: sent.ids.filter((id) => this.#rows.get(id)) };
  }

  get ids() {
    return this.#window.ids;
  }

  #ask(news) {
    const asked = { count: COUNT, ...this.#asked, ...news };
    if (asked.from === this.#asked.from && asked.sort === this.#asked.sort && asked.filter === this.#asked.filter) return;
    this.#asked = asked;
    stateParameters.agents = JSON.stringify(this.#asked);
    this.send({ type: "subscribe", patches: true, agents: this.#asked });
  }
}

/** The agent with this id, wherever it is in the list. */
export async function findAgent(id) {
  const { agents_window: { rows } } = await ask("api/dashboard/state", { agents: JSON.stringify({ filter: id, count: COUNT }) });
  return rows.find(({ agent_id: each }) => each === id);
}
