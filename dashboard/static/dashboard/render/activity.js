// The feed: what happens, as it happens. Bounded, and told four times a second at most.

import { hubTime, showAge } from "../clock.js";
import { ageElement, isPointedAt, make, taskAddress } from "../dom.js";
import { count, plural, shorten } from "../format.js";
import { learn, titleOf } from "../titles.js";
import { detailOf, wordsOf } from "../words.js";
import { setText } from "./rows.js";

const MOST_LINES = 150;
const MOST_AT_ONCE = 30; // of what came between two tellings; the others are counted
const TELL_MS = 250;

const list = document.querySelector("#activity-list");
const pause = document.querySelector("#activity-pause");
const note = document.querySelector("#activity-note");

let waiting = []; // not told yet, oldest first; at most MOST_LINES
let untold = []; // events that fell out of `waiting` before they were told
let missed = 0; // how many came while it was paused
let paused = false;
let timer = 0;

export function start({ onState, onFrame }) {
  onState((state, previous) => {
    if (state.recent_completions !== previous?.recent_completions) learn(state.recent_completions);
    if (state.dead_letter_tasks !== previous?.dead_letter_tasks) learn(state.dead_letter_tasks, "id");
  });
  onFrame("events", ({ data }) => take(data));
  list.addEventListener("mouseleave", schedule);
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.ariaPressed = String(paused);
    setText(pause, paused ? "Go on" : "Pause");
    missed = 0;
    tellPause();
    schedule();
  });
}

function take(events) {
  learn(events);
  const at = hubTime();
  waiting.push(...events.map((event) => ({ timestamp: at, ...event })));
  untold.push(...waiting.splice(0, Math.max(0, waiting.length - MOST_LINES)).map(kindOf));
  if (untold.length > 20_000) untold.splice(0, 10_000); // paused for hours: the count in the note is the true one
  missed += events.length;
  if (paused) tellPause();
  else schedule();
}

function tellPause() {
  setText(note, paused ? `Paused, ${plural(missed, "new event")}` : "");
}

function schedule() {
  if (!paused) timer ||= setTimeout(tell, TELL_MS);
}

function tell() {
  timer = 0;
  if (paused || !waiting.length || isPointedAt(list)) return;
  const few = waiting.splice(0, waiting.length).reverse();
  const others = [...untold.splice(0, untold.length), ...few.splice(MOST_AT_ONCE).map(kindOf)];
  const lines = few.map(line);
  if (others.length) lines.push(make("li", { class: "others muted" }, `and ${count(others.length)} more: ${tally(others)}`));
  list.prepend(...lines);
  while (list.childElementCount > MOST_LINES) list.lastElementChild.remove();
  document.querySelector("#activity-empty").hidden = true;
  document.querySelector("#activity-scroll").hidden = false;
}

function kindOf(event) {
  return event.event ?? event.type;
}

function tally(kinds) {
  const counts = new Map();
  for (const kind of kinds) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return [...counts].map(([kind, number]) => `${count(number)} × ${wordsOf(kind).step.toLowerCase()}`).join(", ");
}

function line(event) {
  const { tone, sentence, detail } = event.type === "task_event" ? taskLine(event) : fleetLine(event);
  const age = make("span", { class: "muted age" }, ageElement());
  showAge(age, event.timestamp);
  const item = make("li", { "data-event": kindOf(event), "data-tone": tone, "data-task": event.task_id }, age, " ", ...sentence);
  if (detail) item.append(" ", make("span", { class: "muted", dir: "auto" }, shorten(detail)));
  return item;
}

function taskLine(event) {
  const { did, was, tone } = wordsOf(event.event);
  const title = shorten(titleOf(event.task_id));
  const task = make("a", { href: taskAddress(event.task_id), dir: "auto", title: event.task_id }, title);
  const sentence = did && event.agent_id ? [who(event.agent_id), ` ${did} `, task] : [task, ` ${was ?? did} `];
  return { tone, sentence, detail: detailOf(event.event, event) };
}

function fleetLine(event) {
  const { agent_id: id, name: called, capabilities = [], status, conditions = [] } = event;
  switch (event.type) {
    case "agent_joined": return { sentence: [who(called || id), " connected"], detail: capabilities.join(", ") };
    case "agent_left": return { sentence: [who(id), " is gone"] };
    case "status_changed": return { sentence: [who(id), status ? " says" : " says nothing any more"], detail: status };
    case "health_changed": return { tone: status, sentence: [`Health is ${status}`], detail: conditions.join("; ") };
    default: return { sentence: [event.type] };
  }
}

function who(agent) {
  return make("b", { dir: "auto" }, agent);
}
