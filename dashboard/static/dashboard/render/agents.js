// The table of agents: sorted, filtered, and of thousands only what is visible is in the document.

import { announce, byId, onClick, setText } from "../dom.js";
import { countOf } from "../format.js";
import { Requests } from "../requests.js";
import { everyone, matching } from "../roster.js";
import { compareText } from "../state.js";
import { Rows } from "./rows.js";
import { showSize, sortable, sorted } from "./table.js";
import { Window } from "./window.js";

const panel = byId("agents");
const table = panel.querySelector("table");
const filter = byId("agent-filter");
const note = byId("forget-note"); // it brings what may be said of it
const rows = new Rows(byId("agent-rows"), byId("agent-template"), { idOf: ({ agent_id: id }) => id, view });
const visible = new Window(byId("agents-table"), rows, { above: byId("agents-above"), below: byId("agents-below") });
const leaving = new Set(); // ids of the lost agents that the hub is asked to forget, or has forgotten

let all = null;

export function start(context) {
  const forgetting = new Requests(context, {
    type: "forget_agent", answer: "forget_result", key: "agent_id", done: "forgotten", texts: note.dataset, tell,
  });
  context.onState(["agents", "offline_agents"], (state) => {
    all = everyone(state);
    show();
  });
  sortable(table, showFromTop);
  filter.addEventListener("input", show);
  onClick(document, "[data-show-agents]", jump);
  onClick(table, "[data-forget]", (button) => forgetting.ask(button.closest("[data-agent]").dataset.agent));
}

function show() {
  if (!all) return;
  const listed = sorted(table, matching(all, filter.value), (a, b) => compareText(a.agent_id, b.agent_id));
  visible.show(listed);
  table.ariaRowCount = listed.length + 1;
  setText(byId("agents-summary"), countOf(listed.length, all.length));
  showSize(panel, listed.length, all.length);
}

function showFromTop() {
  show();
  visible.rewind();
}

// Elsewhere on the page somebody asked to see an agent, or all in a state.
function jump(asker) {
  filter.value = asker.dataset.showAgents;
  showFromTop();
  panel.scrollIntoView({ block: "nearest" });
  filter.focus();
}

function view(agent) {
  const { agent_id: id, isLost } = agent;
  if (!isLost) leaving.delete(id);
  return { ...agent, forget: `Forget ${id}`, isLeaving: leaving.has(id) };
}

// Show the outcome `{state, text}` of the wish to forget an agent.
function tell(id, { state, text }) {
  if (state === "failed") leaving.delete(id);
  else leaving.add(id);
  rows.refill(id);
  const said = state === "waiting" ? "" : `${id}: ${text}`;
  setText(note, said);
  if (said) announce(said);
}
