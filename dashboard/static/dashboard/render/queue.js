// The queue: its lanes, and the tasks in it with why each is not running yet.

import { address, ask, Paced } from "../ask.js";
import { showAge } from "../clock.js";
import { taskAddress } from "../dom.js";
import { count, figure, shorten } from "../format.js";
import { LANES } from "../words.js";
import { Rows, field, setText } from "./rows.js";

const PAGE = 50;
const REFRESH_MS = 2_000;
const ROLL = { duration: 280, easing: "cubic-bezier(.2,.7,.3,1)" };

const tiles = [...document.querySelectorAll("[data-lane-tile]")];
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const part = (name) => document.querySelector(`#queue-${name}`);
const rows = new Rows(part("rows"), part("template"), { key: "task", idOf: (task) => task.id, fill: fillTask });
const refresh = new Paced(load, REFRESH_MS);

let queued = 0;
let page = { cursors: [null], next: null }; // the cursors that led here, and the one that leads on

export function start({ onState }) {
  onState((state, previous) => {
    if (state.queue === previous?.queue && state.agents === previous?.agents) return;
    queued = state.queue.by_status.queued;
    for (const tile of tiles) showLane(tile, state.queue, previous?.queue);
    part("empty").hidden = queued > 0;
    if (!queued) showPage([]);
    else refresh.want();
  });
  part("previous").addEventListener("click", () => page.cursors.length > 1 && turnTo(page.cursors.slice(0, -1)));
  part("next").addEventListener("click", () => page.next && turnTo([...page.cursors, page.next]));
  setInterval(() => queued && refresh.want(), 10_000); // reasons change without the queue changing
}

function showLane(tile, queue, before) {
  const lane = tile.dataset.laneTile;
  const about = queue.lanes?.[lane];
  roll(tile.querySelector("[data-lane-count]"), queue.by_priority[lane], before?.by_priority[lane]);
  showAge(field(tile, "oldest"), about?.oldest_at);
  setText(field(tile, "added"), `+${rate(about?.added_per_min)}`);
  setText(field(tile, "drained"), `−${rate(about?.drained_per_min)}`);
}

// The text is right at once; only its arrival is drawn, from below when it grew.
function roll(element, value, before) {
  setText(element, figure(value));
  element.title = count(value);
  if (before === undefined || before === value || calm.matches || document.hidden) return;
  const from = value > before ? "45%" : "-45%";
  element.animate([{ transform: `translateY(${from})`, opacity: 0.2 }, { transform: "none", opacity: 1 }], ROLL);
}

function rate(perMinute) {
  if (!Number.isFinite(perMinute)) return "–";
  return perMinute >= 10 ? count(Math.round(perMinute)) : String(Math.round(perMinute * 10) / 10);
}

function turnTo(cursors) {
  page = { cursors, next: null };
  part("table").scrollTop = 0;
  load();
}

async function load() {
  const asked = page;
  try {
    const { tasks, next_cursor: next } = await ask(address("/api/dashboard/queue", { limit: PAGE, cursor: asked.cursors.at(-1) }));
    if (asked !== page) return;
    page.next = next;
    if (!tasks.length && page.cursors.length > 1) return turnTo([null]); // it has drained meanwhile
    showPage(tasks);
    part("error").hidden = true;
  } catch (error) {
    part("error").hidden = false;
    setText(part("error"), `The hub did not list the queue (${error.status ?? "no connection"}); what is below may be old.`);
  }
}

function showPage(tasks) {
  rows.show(tasks);
  const number = page.cursors.length - 1;
  const first = number * PAGE + 1;
  part("table").hidden = tasks.length === 0;
  part("pager").hidden = number === 0 && !page.next;
  part("previous").setAttribute("aria-disabled", String(number === 0));
  part("next").setAttribute("aria-disabled", String(!page.next));
  setText(part("range"), tasks.length ? `${count(first)}–${count(first + tasks.length - 1)} of ${count(queued)}` : "");
}

function fillTask(row, task) {
  const link = field(row, "link");
  link.href = taskAddress(task.id);
  setText(link, shorten(task.description));
  link.title = task.id;
  setText(field(row, "lane"), LANES[task.priority] ?? "");
  row.dataset.reason = task.waiting?.reason ?? "";
  setText(field(row, "reason"), reasonOf(task));
  field(row, "reason").title = task.waiting?.message ?? "";
  showAge(field(row, "waits"), task.created_at);
}

// In few words, for a narrow column; the hub's whole sentence is its tooltip, and stands in the drawer.
function reasonOf({ waiting, needed_capabilities: needs }) {
  switch (waiting?.reason) {
    case undefined: return "being assigned";
    case "nobody_connected": return "no agent connected";
    case "nobody_capable": return waiting.missing.length ? `nobody has ${waiting.missing.join(", ")}` : `nobody has all of ${needs.join(", ")}`;
    case "all_busy": return "next, all who can are busy";
    case "in_line": return waiting.ahead === null ? "many are before it" : waiting.ahead ? `${count(waiting.ahead)} before it` : "next";
    default: return waiting.message ?? waiting.reason;
  }
}
