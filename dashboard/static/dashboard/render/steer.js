// What the drawer does with its task: cancel, run again, change the lane.

import { byId, onClick, setText } from "../dom.js";
import { absolute } from "../format.js";
import { Requests } from "../requests.js";
import { isCut } from "./agents.js";
import { retry } from "./deadletters.js";
import { fill } from "./fill.js";

const dialog = byId("cancel");
const reason = byId("cancel-reason");
const note = byId("drawer-note");
const lanes = byId("drawer-lane");
const ENDED = ["completed", "cancelled"];

let cancelling = null;
let moving = null;
let fleet = null; // the state
let task = null; // the one in the drawer

export function start(context) {
  const texts = note.dataset;
  const tell = (_, { text }) => setText(note, text);
  cancelling = new Requests(context, {
    type: "cancel_task", answer: "cancel_result", key: "task_id", done: ["cancelled", "cancelling"], texts, tell,
  });
  moving = new Requests(context, {
    type: "set_priority", answer: "priority_result", key: "task_id", done: ["queued", "scheduled", "dead_letter"], texts, tell,
  });
  context.onState(["agents", "agents_window"], (state) => (fleet = state));
  onClick(byId("drawer"), "#drawer-cancel", ask);
  onClick(byId("drawer"), "#drawer-retry", runAgain);
  dialog.addEventListener("close", () => dialog.returnValue === "cancel" && cancel());
  lanes.addEventListener("change", () => moving.ask(task.id, { priority: Number(lanes.value) }));
}

/** What the drawer may do with this task. */
export function actsOn(shown) {
  task = shown;
  lanes.value = shown.priority;
  const { status } = shown;
  return {
    mayCancel: !ENDED.includes(status),
    mayRunAgain: status === "dead_letter" || status === "cancelled",
    isMovable: ["queued", "scheduled", "dead_letter"].includes(status),
    isFixed: !["queued", "scheduled", "dead_letter"].includes(status),
    stopping: shown.cancel_deadline && `Its agent is asked to stop, until ${absolute(shown.cancel_deadline)}.`,
  };
}

// What will happen is said before the click.
async function ask() {
  reason.value = task.cancel_reason ?? "";
  fill(dialog, { what: await consequence(task) });
  dialog.showModal();
}

async function consequence({ status, assigned_to: id, cancel_deadline: deadline }) {
  const words = dialog.dataset;
  if (status !== "assigned") return words.waiting;
  if (deadline) return words.again;
  const agent = fleet && (isCut(fleet) ? await (await import("./remote.js")).findAgent(id) : fleet.agents.find(({ agent_id: each }) => each === id));
  const said = !agent ? words.gone : agent.accepts?.includes("cancel") ? words.listens : words.deaf;
  return said.replace("NAME", () => agent?.name || id);
}

function cancel() {
  const isAgain = Boolean(task.cancel_deadline);
  cancelling.ask(task.id, { reason: reason.value, timeout_s: isAgain ? 0 : undefined });
}

async function runAgain() {
  const { text } = await retry(task.id);
  setText(note, text);
}
