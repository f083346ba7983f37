// Questions over HTTP, and how often they are asked.

import { page as home } from "./dom.js";

/** Of a `path` of the hub, such as `api/tasks`: under the prefix of the page. */
export const address = (path) => `${home.dataset.base}/${path}`;

/** The hub's JSON answer to GET `path`; throws an Error with `status` where there is none. */
export async function ask(path, parameters) {
  return JSON.parse(await askText(path, parameters));
}

/** The same as the hub wrote it. */
export async function askText(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null);
  const url = address(given.length ? `${path}?${new URLSearchParams(given)}` : path);
  const response = await fetch(url, { headers: { Accept: "application/json" } });
  if (!response.ok) throw Object.assign(new Error(url), { status: response.status });
  return response.text();
}

let etag = null;

/** What is asked of the state besides: a window of a large fleet's agents (render/remote.js). */
export const stateParameters = {};

/** The hub's state: `status` of its answer (0: there was none), and as a `frame` what it says, if anything. */
export async function askState() {
  const headers = etag ? { "If-None-Match": etag } : {};
  try {
    const query = new URLSearchParams(stateParameters);
    const answer = await fetch(address(`api/dashboard/state${query.size ? `?${query}` : ""}`), { headers, cache: "no-store" });
    const { status } = answer;
    if (status === 304) return { status, frame: { type: "unchanged" } };
    if (!answer.ok) return { status };
    const frame = { type: "snapshot", data: await answer.json() };
    etag = answer.headers.get("ETag");
    return { status, frame };
  } catch {
    return { status: 0 };
  }
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

/** Calls of what it gives have `work` done: soon, `every` ms apart, not in a hidden tab. */
export function paced(work, every) {
  let isWanted = false;
  let isBusy = false;

  async function run() {
    if (!isWanted || isBusy || document.hidden) return;
    isWanted = false;
    isBusy = true;
    try {
      await work();
    } finally {
      setTimeout(() => {
        isBusy = false;
        run();
      }, every);
    }
  }

  document.addEventListener("visibilitychange", run);
  return () => {
    isWanted = true;
    queueMicrotask(run);
  };
}
