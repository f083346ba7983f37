// The hub's state over plain HTTP: for a browser whose socket does not get through.

import { address } from "./ask.js";

export class Poll {
  #etag = null;

  /** The `status` of the answer (0: there was none), and what it says as a frame where it says something. */
  async read() {
    const headers = this.#etag ? { "If-None-Match": this.#etag } : {};
    try {
      const answer = await fetch(address("api/dashboard/state"), { headers, cache: "no-store" });
      const { status } = answer;
      if (status === 304) return { status, frame: { type: "unchanged" } };
      if (!answer.ok) return { status };
      const data = await answer.json();
      this.#etag = answer.headers.get("ETag");
      return { status, frame: { type: "snapshot", data } };
    } catch {
      return { status: 0 };
    }
  }
}
