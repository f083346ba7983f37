// Holds: what is handed out no more, by whose doing and why; placed and lifted here.

import { announce, byId, onClick, setText } from "../dom.js";
import { Requests } from "../requests.js";
import { byWhom } from "../words.js";
import { Rows } from "./rows.js";

const box = byId("holds");
const form = byId("hold-form");
const note = byId("hold-note"); // with what may be said of a hold
const [scope, lanes, subject, reason, until] = ["scope", "lane", "subject", "reason", "until"].map((name) => byId(`hold-${name}`));
const rows = new Rows(byId("hold-list"), byId("hold-template"), { idOf: ({ id }) => id, view });

let placing = null;
let lifting = null;
let before = Promise.resolve(); // the last hold that was asked for
let held = [];

export function start(context) {
  const texts = note.dataset;
  placing = new Requests(context, { type: "place_hold", answer: "hold_result", key: "hold_id", done: "held", texts, tell });
  lifting = new Requests(context, { type: "lift_hold", answer: "hold_result", key: "hold_id", done: "lifted", texts, tell });
  context.onState(["holds"], (state) => show(state.holds ?? []));
  scope.addEventListener("input", showFields);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    place();
  });
  onClick(box, "[data-lift]", ({ dataset }) => lifting.ask(dataset.lift));
  onClick(document, "[data-hold]", ({ dataset }) => prepare(dataset));
  showFields();
}

function show(holds) {
  held = holds;
  rows.show(holds);
  const words = box.dataset;
  const isAll = holds.some((hold) => hold.scope === "hub");
  box.dataset.count = holds.length;
  setText(byId("holds-word"), isAll ? words.all : holds.length ? `${words.some}: ${holds.length}` : words.none);
  byId("holds-none").hidden = holds.length > 0;
  for (const button of document.querySelectorAll("[data-hold=lane]")) mark(button, "lane", button.dataset.subject);
}

function mark(button, kind, name) {
  const hold = held.find((each) => each.scope === kind && each.subject === name);
  button.ariaPressed = String(Boolean(hold));
  button.title = hold ? `${button.dataset.on} ${hold.reason}` : button.ariaLabel;
}

/** Whether this agent is held by itself. */
export function isHeld(agent) {
  return held.some((hold) => hold.scope === "agent" && hold.subject === agent);
}

function view(hold) {
  return { ...hold, what: whatOf(hold), by: byWhom({ actor: hold.placed_by }), lift: `Lift the hold on ${whatOf(hold)}` };
}

function whatOf({ scope: kind, subject: name }) {
  return kind === "hub" ? "the whole hub" : `${kind} ${name}`;
}

// The box, ready for a reason: at once, so that what is typed next is in it.
function prepare({ hold: kind, subject: name }) {
  scope.value = kind;
  (kind === "lane" ? lanes : subject).value = name;
  showFields();
  box.open = true;
  reason.focus();
}

function showFields() {
  lanes.hidden = scope.value !== "lane";
  subject.hidden = !["capability", "agent"].includes(scope.value);
  subject.required = !subject.hidden;
}

async function place() {
  const asked = filledIn();
  // One after the other, because an answer does not say which hold it is about.
  before = before.then(() => placing.ask(undefined, asked));
  const outcome = await before;
  // By now, somebody may be writing the next one.
  if (outcome.state === "held" && JSON.stringify(filledIn()) === JSON.stringify(asked)) form.reset();
  showFields();
}

function filledIn() {
  const about = { lane: lanes.value, capability: subject.value, agent: subject.value }[scope.value];
  const end = until.value ? new Date(until.value).getTime() : undefined;
  return { scope: scope.value, subject: about, reason: reason.value, until: end };
}

function tell(_, { text }) {
  setText(note, text);
  announce(text);
}
