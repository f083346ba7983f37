// The feed of events: bounded, and drawn four times a second at most.

import { hubTime } from "../clock.js";
import { byId, isPointedAt, onClick, setText, showWhen } from "../dom.js";
import { count, plural } from "../format.js";
import { detailOf, titleOf, wordsOf } from "../words.js";
import { copyOf, fill } from "./fill.js";

const MOST_LINES = 150;
const MOST_AT_ONCE = 30; // lines; the other events are counted
const TELL_MS = 250;

const list = byId("activity-list");
const template = byId("activity-template");

let waiting = []; // for their lines, oldest first
let untold = new Map(); // kind → how many get no line
let missed = 0; // while it was paused
let paused = false;
let timer = 0;

export function start({ onFrame }) {
  onFrame("events", ({ data }) => take(data));
  list.addEventListener("mouseleave", schedule);
  onClick(document, "#activity-pause", (pause) => {
    paused = !paused;
    pause.ariaPressed = paused;
    setText(pause, paused ? "Go on" : "Pause");
    missed = 0;
    schedule();
  });
}

function take(events) {
  const at = hubTime();
  waiting.push(...events.map((event) => ({ timestamp: at, ...event })));
  leaveUntold(waiting.splice(0, Math.max(0, waiting.length - MOST_LINES)));
  missed += events.length;
  schedule();
}

function leaveUntold(events) {
  for (const event of events) untold.set(kindOf(event), (untold.get(kindOf(event)) ?? 0) + 1);
}

function schedule() {
  setText(byId("activity-note"), paused ? `Paused, ${plural(missed, "new event")}` : "");
  if (!paused) timer ||= setTimeout(tell, TELL_MS);
}

function tell() {
  timer = 0;
  if (paused || !waiting.length || isPointedAt(list)) return;
  const few = waiting.splice(0, waiting.length).reverse();
  leaveUntold(few.splice(MOST_AT_ONCE));
  const lines = few.map(line);
  if (untold.size) lines.push({ did: others(), mark: "others" });
  list.prepend(...lines.map((each) => fill(copyOf(template), each)));
  while (list.childElementCount > MOST_LINES) list.lastElementChild.remove();
  showWhen(list.closest("section"), "some");
}

// Who did what, or what became of what; then, muted, the detail.
function line(event) {
  const kind = kindOf(event);
  const { status } = event;
  const { did, was = did, tone } = kind === "health_changed" ? { was: `Health is ${status}`, tone: status } : wordsOf(kind);
  const who = did && (event.name || event.agent_id);
  return {
    kind, tone, who,
    at: event.timestamp,
    task: event.task_id,
    title: event.task_id && titleOf(event.task_id),
    ...(who ? { did } : { was }),
    detail: detailOf(kind, event),
  };
}

function kindOf(event) {
  return event.event ?? event.type;
}

function others() {
  const kinds = [...untold].map(([kind, number]) => `${count(number)} × ${wordsOf(kind).step.toLowerCase()}`);
  const number = [...untold.values()].reduce((sum, each) => sum + each);
  untold = new Map();
  return `and ${count(number)} more: ${kinds.join(", ")}`;
}
