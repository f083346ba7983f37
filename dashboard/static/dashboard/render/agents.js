// The connected agents, and those lately lost.

import { showAge } from "../clock.js";
import { count } from "../format.js";
import { Rows, field, setChips, setText } from "./rows.js";

const STATES = ["working", "assigned", "blocked", "idle"]; // busiest first

const connected = new Rows(
  document.querySelector("#agent-rows"),
  document.querySelector("#agent-template"),
  { key: "agent", idOf: (agent) => agent.agent_id, fill: fillAgent },
);
const lost = new Rows(
  document.querySelector("#lost-rows"),
  document.querySelector("#lost-agent-template"),
  { key: "agent", idOf: (agent) => agent.agent_id, fill: fillLost },
);

export function start({ onState }) {
  onState(renderAgents);
}

function renderAgents({ agents, offline_agents: offline }, previous) {
  if (agents !== previous?.agents) {
    connected.show(agents);
    setText(document.querySelector("#agents-summary"), summary(agents));
    document.querySelector("#agents-empty").hidden = agents.length > 0;
    document.querySelector("#agents-table").hidden = agents.length === 0;
  }
  if (offline !== previous?.offline_agents) {
    lost.show(offline);
    setText(document.querySelector("#lost-count"), count(offline.length));
    document.querySelector("#lost").hidden = offline.length === 0;
  }
}

function summary(agents) {
  const parts = STATES.map((state) => [agents.filter((agent) => agent.fsm_state === state).length, state])
    .filter(([number]) => number > 0)
    .map(([number, state]) => `${count(number)} ${state}`);
  return [`${count(agents.length)} connected`, ...parts].join(" · ");
}

function fillAgent(row, agent) {
  fillName(row, agent);
  row.dataset.state = agent.fsm_state;
  setText(field(row, "state"), agent.fsm_state);
  showAge(field(row, "since"), agent.last_state_change);
  showAge(field(row, "connected"), agent.connected_at);
}

function fillLost(row, agent) {
  fillName(row, agent);
  showAge(field(row, "seen"), agent.last_seen);
}

function fillName(row, agent) {
  const name = agent.name || agent.agent_id;
  row.firstElementChild.title = name; // the cell may be too narrow for all of it
  setText(field(row, "name"), name);
  setText(field(row, "id"), agent.agent_id);
  field(row, "id").hidden = !agent.name || agent.name === agent.agent_id;
  setText(field(row, "task"), agent.current_task_id ?? "–");
  setChips(field(row, "capabilities"), agent.capabilities);
}
