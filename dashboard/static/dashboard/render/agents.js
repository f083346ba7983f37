// The table of agents: sorted, filtered, and only what is visible is in the document.

import { announce, byId, onClick, once, setText } from "../dom.js";
import { countOf, isolated, list } from "../format.js";
import { Requests } from "../requests.js";
import { compareText } from "../state.js";
import { isHeld } from "./holds.js";
import { Rows } from "./rows.js";
import { showSize, sortable, sorted } from "./table.js";
import { Window } from "./window.js";

const STATES = ["unresponsive", "stopping", "blocked", "offline", "assigned", "working", "idle"]; // what wants a person's eye comes first

const panel = byId("agents");
const table = panel.querySelector("table");
const filter = byId("agent-filter");
const note = byId("forget-note"); // with what may be said of it
const rows = new Rows(byId("agent-rows"), byId("agent-template"), { idOf: ({ agent_id: id }) => id, view });
const visible = new Window(byId("agents-table"), rows, { above: byId("agents-above"), below: byId("agents-below") });
const leaving = new Set(); // ids of the lost agents that are being forgotten

// A lost one says so in its `fsm_state`.
const connected = once(asRow);
const lost = once((agent) => asRow({ ...agent, fsm_state: "offline", last_state_change: agent.last_seen }));

let all = null;
let remote = null; // RemoteAgents, where there are more agents than the hub sends at once

export function start(context) {
  const forgetting = new Requests(context, {
    type: "forget_agent", answer: "forget_result", key: "agent_id", done: "forgotten", texts: note.dataset, tell,
  });
  context.onState(["agents", "offline_agents", "agents_window"], (state) => {
    all = [...state.agents.map(connected), ...state.offline_agents.map(lost)];
    if (isCut(state)) showRemote(context, state);
    else {
      remote = null;
      show();
    }
  });
  context.onState(["holds"], () => (remote?.ids ?? all?.map(({ agent_id: id }) => id))?.forEach((id) => rows.refill(id)));
  sortable(table, showFromTop);
  filter.addEventListener("input", show);
  onClick(document, "[data-show-agents]", jump);
  onClick(table, "[data-forget]", (button) => forgetting.ask(button.closest("[data-agent]").dataset.agent));
}

function asRow(agent) {
  const { agent_id: id, fsm_state: state, current_task_id: task, current_task_title: called, capabilities } = agent;
  const name = agent.name || id;
  const skills = list(capabilities);
  return {
    ...agent, name, skills,
    page: `${document.documentElement.dataset.base}/dashboard/agents/${id.split("/").map(encodeURIComponent).join("/")}`,
    named: name !== id && id,
    title: name === id ? name : `${isolated(name)} (${id})`, // the cell may be too narrow
    isLost: state === "offline",
    isFree: state !== "offline" && !task,
    byName: name.toLowerCase(),
    byTask: (called || task || "").toLowerCase(),
    byState: STATES.indexOf(state),
    searched: [id, name, state, task, called, skills].join("\n").toLowerCase(),
  };
}

// Those with every word of the filter.
function matching() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  return all.filter(({ searched }) => words.every((word) => searched.includes(word)));
}

/** Whether the hub has more agents than it has sent. */
export function isCut({ agents, offline_agents: lost, agents_by_state: states, agents_window: sent }) {
  const total = Object.values(states).reduce((sum, each) => sum + each, 0);
  return Boolean(sent) || total > agents.length + lost.length;
}

async function showRemote({ send }, { agents_window: sent }) {
  const { RemoteAgents } = await import("./remote.js");
  const asRemote = (agent) => (agent.fsm_state ? connected : lost)(agent);
  remote ??= new RemoteAgents({ asRow: asRemote, send });
  remote.take(sent);
  show();
}

function show() {
  if (!all) return;
  if (remote) remote.order(table.querySelector("[aria-sort]"), filter.value.trim());
  if (remote && !remote.total) return; // what the server painted stays until there is more
  const listed = remote ?? sorted(table, matching(), (a, b) => compareText(a.agent_id, b.agent_id));
  const total = remote?.total ?? all.length;
  visible.show(listed);
  table.ariaRowCount = listed.length + 1;
  setText(byId("agents-summary"), countOf(listed.length, total));
  showSize(panel, listed.length, total);
}

function showFromTop() {
  show();
  visible.rewind();
}

// To an agent, or to all in a state.
function jump(asker) {
  filter.value = asker.dataset.showAgents;
  showFromTop();
  panel.scrollIntoView({ block: "nearest" });
  filter.focus();
}

function view(agent) {
  const { agent_id: id, isLost } = agent;
  if (!isLost) leaving.delete(id);
  return { ...agent, forget: `Forget ${id}`, hold: `Hold ${id}`, isHeld: isHeld(id), isLeaving: leaving.has(id) };
}

function tell(id, { state, text }) {
  if (state === "failed") leaving.delete(id);
  else leaving.add(id);
  rows.refill(id);
  const said = state === "waiting" ? "" : `${id}: ${text}`;
  setText(note, said);
  if (said) announce(said);
}
