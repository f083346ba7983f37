// The tab's title and icon: what wants attention, seen from another tab.

const MOST = 9; // room for one digit

const icon = document.querySelector("link[rel=icon]");

let old = ""; // how the connection is called while the figures are old
let light = "ok";
let wanting = 0; // conditions, and agents that wait for a person

export function start({ onState, onStatus }) {
  onStatus(({ state }) => {
    old = state === "stale" || state === "offline" ? state : "";
    show();
  });
  onState(["health", "agents"], ({ health, agents }) => {
    light = health.status;
    wanting = health.details.length + agents.filter((agent) => agent.fsm_state === "blocked").length;
    show();
  });
}

function show() {
  document.title = `${words()}AgentCom`;
  const address = new URL(icon.href);
  address.search = new URLSearchParams({ light: old ? "unknown" : light, number: Math.min(wanting, MOST) });
  if (icon.href !== address.href) icon.href = address.href;
}

function words() {
  if (old) return `${old} · `;
  return (wanting ? `(${wanting}) ` : "") + (light === "ok" ? "" : `${light} · `);
}
