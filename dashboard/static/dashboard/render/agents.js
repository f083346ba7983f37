// The table of agents: sorted, filtered, and of thousands only what is visible is in the document.

import { showAge } from "../clock.js";
import { count } from "../format.js";
import { Forgetting } from "../forget.js";
import { COLUMNS, everyone, matching, nameOf, sorted } from "../roster.js";
import { announce } from "./announcement.js";
import { Rows, field, setChips, setText } from "./rows.js";
import { Window } from "./window.js";

const table = document.querySelector("#agents-table");
const heads = [...table.querySelectorAll("[data-sort]")];
const filter = document.querySelector("#agent-filter");
const rows = new Rows(
  document.querySelector("#agent-rows"),
  document.querySelector("#agent-template"),
  { key: "agent", idOf: (agent) => agent.agent_id, fill },
);
const visible = new Window({
  scroller: table,
  rows,
  above: document.querySelector("#agents-above"),
  below: document.querySelector("#agents-below"),
});
const outcomes = new Map(); // agent id → what came of forgetting it

let state = null;
let order = { column: "name", descending: false };
let listed = [];

export function start({ onState, onFrame, onStatus, send }) {
  const forgetting = new Forgetting({ send, tell: showOutcome });
  onState((next, previous) => {
    state = next;
    if (next.agents !== previous?.agents || next.offline_agents !== previous?.offline_agents) show();
  });
  onFrame("forget_result", (frame) => forgetting.answered(frame));
  onStatus((status) => {
    if (status.state !== "live") forgetting.abandon();
  });
  for (const head of heads) head.querySelector("button").addEventListener("click", () => sortBy(head.dataset.sort));
  filter.addEventListener("input", show);
  document.addEventListener("click", (event) => jump(event.target.closest("[data-show-agents]")));
  table.addEventListener("click", (event) => {
    const button = event.target.closest("[data-forget]");
    if (button && button.getAttribute("aria-disabled") !== "true") forgetting.ask(button.closest("[data-agent]").dataset.agent);
  });
}

function show() {
  if (!state) return;
  const all = everyone(state);
  listed = sorted(matching(all, filter.value), order);
  visible.show(listed);
  table.querySelector("table").ariaRowCount = listed.length + 1;
  table.hidden = all.length === 0;
  filter.hidden = all.length === 0;
  setText(document.querySelector("#agents-summary"), summary(all.length));
  document.querySelector("#agents-empty").hidden = state.agents.length > 0 || all.length > 0;
  document.querySelector("#agents-none-match").hidden = listed.length > 0 || all.length === 0;
}

function summary(all) {
  return listed.length === all ? count(all) : `${count(listed.length)} of ${count(all)}`;
}

function sortBy(column) {
  const first = Boolean(COLUMNS[column].descending);
  order = { column, descending: order.column === column ? !order.descending : first };
  for (const head of heads) {
    const chosen = head.dataset.sort === column;
    if (chosen) head.ariaSort = order.descending ? "descending" : "ascending";
    else head.removeAttribute("aria-sort");
  }
  show();
  visible.reveal(0);
}

// Elsewhere on the page somebody asked to see an agent, or all in a state.
function jump(asker) {
  if (!asker) return;
  filter.value = asker.dataset.showAgents;
  show();
  visible.reveal(0);
  filter.closest("section").scrollIntoView({ block: "nearest" });
  filter.focus();
}

function showOutcome(agentId, outcome) {
  outcomes.set(agentId, outcome);
  if (rows.get(agentId)) fillForget(rows.get(agentId), agentId, true);
  const said = outcome.state === "waiting" ? "" : `${agentId}: ${outcome.text}`;
  setText(document.querySelector("#forget-note"), said);
  if (said) announce(said);
}

function fillForget(row, id, isLost) {
  const button = row.querySelector("[data-forget]");
  const isUnderWay = outcomes.has(id) && outcomes.get(id).state !== "failed";
  button.hidden = !isLost;
  button.ariaLabel = `Forget ${id}`;
  // Not `disabled`: that would take the keyboard's place in the table away.
  button.ariaDisabled = String(isUnderWay);
}

function fill(row, agent) {
  const { agent_id: id, current_task_id: task } = agent;
  const isLost = agent.fsm_state === "offline";
  if (!isLost) outcomes.delete(id);
  row.dataset.state = agent.fsm_state;
  fillName(row, agent);
  setText(field(row, "state"), agent.fsm_state);
  showAge(field(row, "since"), agent.last_state_change);
  fillTask(field(row, "task"), task, isLost);
  setChips(field(row, "capabilities"), agent.capabilities);
  field(row, "capabilities").title = agent.capabilities.join(", ");
  showAge(field(row, "seen"), agent.last_seen);
  setText(field(row, "completed"), count(agent.completed_this_hour));
  setText(field(row, "failed"), count(agent.failed_this_hour));
  fillForget(row, id, isLost);
}

function fillName(row, agent) {
  const name = nameOf(agent);
  const id = field(row, "id");
  row.firstElementChild.title = name === agent.agent_id ? name : `${name} (${agent.agent_id})`; // the cell may be too narrow
  setText(field(row, "name"), name);
  setText(id, agent.agent_id);
  id.hidden = name === agent.agent_id;
}

function fillTask(cell, task, isLost) {
  const [link, none] = cell.children;
  link.hidden = !task;
  none.hidden = isLost || Boolean(task);
  setText(link, task ?? "");
  if (task) link.href = `?task=${encodeURIComponent(task)}`;
  cell.title = task ?? "";
}
