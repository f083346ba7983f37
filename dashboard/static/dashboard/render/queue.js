// The queue: its lanes, and the tasks in it with why each is not running yet.

import { ask, paced } from "../ask.js";
import { byId, onClick } from "../dom.js";
import { count, list } from "../format.js";
import { learn } from "../words.js";
import { fill } from "./fill.js";
import { Rows } from "./rows.js";

const PAGE = 50;
const REFRESH_MS = 2_000;
const WAITING_MS = 10_000; // reasons change without the queue changing
const ROLL = { duration: 280, easing: "cubic-bezier(.2,.7,.3,1)" };

const tiles = [...document.querySelectorAll("[data-lane-tile]")];
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const part = (name) => byId(`queue-${name}`);
const rows = new Rows(part("rows"), part("template"), { idOf: ({ id }) => id, view });
const refresh = paced(load, REFRESH_MS);

let queued = 0;
let page = { cursors: [null], next: null }; // those that led here, and the one on

export function start({ onState }) {
  onState(["queue", "agents"], (state, previous) => {
    queued = state.queue.by_status.queued;
    for (const tile of tiles) showLane(tile, state.queue, previous?.queue);
    part("empty").hidden = queued > 0;
    if (!queued) showPage([]);
    else refresh();
  });
  onClick(part("pager"), "#queue-previous", () => turnTo(page.cursors.slice(0, -1)));
  onClick(part("pager"), "#queue-next", () => turnTo([...page.cursors, page.next]));
  setInterval(() => queued && refresh(), WAITING_MS);
}

function showLane(tile, { by_priority: counts, lanes }, before) {
  const lane = tile.dataset.laneTile;
  const waiting = counts[lane];
  const longest = Math.max(1, ...Object.values(counts));
  fill(tile, { ...lanes?.[lane], waiting, share: `${Math.round((100 * waiting) / longest)}%` });
  roll(tile.querySelector("[data-lane-count]"), waiting, before?.by_priority[lane]);
}

// The text is right at once; only its arrival is drawn, from below when it grew.
function roll(element, value, before = value) {
  if (before === value || calm.matches || document.hidden) return;
  const from = value > before ? "45%" : "-45%";
  element.animate([{ transform: `translateY(${from})`, opacity: 0.2 }, { transform: "none", opacity: 1 }], ROLL);
}

function turnTo(cursors) {
  page = { cursors, next: null };
  part("table").scrollTop = 0;
  load();
}

async function load() {
  const asked = page;
  try {
    const { tasks, next_cursor: next } = await ask("api/dashboard/queue", { limit: PAGE, cursor: asked.cursors.at(-1) });
    if (asked !== page) return;
    learn(tasks);
    page.next = next;
    if (!tasks.length && page.cursors.length > 1) return turnTo([null]); // it has drained meanwhile
    showPage(tasks);
    fill(part("error"), {});
  } catch (error) {
    fill(part("error"), { problem: error.status ?? "no connection" });
  }
}

function showPage(tasks) {
  rows.show(tasks);
  const before = (page.cursors.length - 1) * PAGE;
  part("table").hidden = tasks.length === 0;
  part("pager").hidden = !before && !page.next;
  fill(part("pager"), {
    isFirst: !before,
    isLast: !page.next,
    range: tasks.length ? `${count(before + 1)}–${count(before + tasks.length)} of ${count(queued)}` : "",
  });
}

function view(task) {
  return { ...task, reason: reasonOf(task) };
}

// In few words, for a narrow column; the hub's sentence is the tooltip, and in the drawer.
function reasonOf({ waiting, needed_capabilities: needs }) {
  switch (waiting?.reason) {
    case undefined: return "being assigned";
    case "nobody_capable": return waiting.missing.length ? `nobody has ${list(waiting.missing)}` : `nobody has all of ${list(needs)}`;
    case "in_line": return waiting.ahead === null ? "many are before it" : waiting.ahead ? `${count(waiting.ahead)} before it` : "next";
    default: return rows.container.dataset[waiting.reason] ?? waiting.message;
  }
}
