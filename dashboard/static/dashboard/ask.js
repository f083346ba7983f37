// Questions to the hub over HTTP, and how often they are asked.

/** The hub's JSON answer to GET `path`; throws an Error with `status` where there is none. */
export async function ask(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null);
  const address = given.length ? `${path}?${new URLSearchParams(given)}` : path;
  const response = await fetch(address, { headers: { Accept: "application/json" } });
  if (!response.ok) throw Object.assign(new Error(`${address}: ${response.status}`), { status: response.status });
  return response.json();
}

/** The pages of a list, one after the other. */
export async function* pages(path, parameters) {
  let cursor = null;
  do {
    const page = await ask(path, { ...parameters, cursor });
    yield page;
    cursor = page.next_cursor;
  } while (cursor);
}

/** Work that is wanted often and done seldom: one at a time, `every` ms apart, not in a hidden tab. */
export class Paced {
  #timer = 0;
  #running = false;
  #wanted = false;
  #lastEnd = -Infinity;

  constructor(work, every) {
    this.work = work;
    this.every = every;
    document.addEventListener("visibilitychange", () => this.#schedule());
  }

  /** It is wanted, soon. */
  want() {
    this.#wanted = true;
    this.#schedule();
  }

  #schedule() {
    if (!this.#wanted || this.#running || document.hidden) return;
    const wait = this.#lastEnd + this.every - performance.now();
    this.#timer ||= setTimeout(() => this.#run(), Math.max(0, wait));
  }

  async #run() {
    this.#timer = 0;
    this.#wanted = false;
    this.#running = true;
    try {
      await this.work();
    } finally {
      this.#running = false;
      this.#lastEnd = performance.now();
      this.#schedule();
    }
  }
}
