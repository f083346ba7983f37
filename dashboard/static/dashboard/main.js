// The dashboard: frames from the hub become a state, a state becomes the page.

import { startClock, synchronise } from "./clock.js";
import { Connection } from "./connection.js";
import { Retries } from "./retry.js";
import { fromSnapshot, withPatch } from "./state.js";
import { renderAgents } from "./render/agents.js";
import { renderConnection, renderHeard, startBadge } from "./render/connection.js";
import { renderFigures } from "./render/figures.js";
import { renderHealth } from "./render/health.js";
import { onRetry, renderTasks, showOutcome } from "./render/tasks.js";

const RENDERERS = [renderHealth, renderFigures, renderAgents, renderTasks];

const FRAMES = {
  snapshot: ({ data }) => {
    synchronise(data.timestamp);
    show(fromSnapshot(data));
  },
  patch: (frame) => {
    if (state) show(withPatch(state, frame));
  },
  retry_result: (frame) => retries.answered(frame),
};

let state = null;

function show(next) {
  for (const render of RENDERERS) render(next, state);
  state = next;
  document.documentElement.dataset.seq = next.seq;
}

const connection = new Connection(new URL("/ws/dashboard", location.href.replace(/^http/, "ws")), {
  onFrame: (frame) => {
    FRAMES[frame.type]?.(frame);
    renderHeard();
  },
  onStatus: (status) => {
    renderConnection(status);
    if (status.state !== "live") retries.abandon();
  },
});

const retries = new Retries({ send: (message) => connection.send(message), tell: showOutcome });

for (const place of document.querySelectorAll("[data-origin]")) place.textContent = location.origin;
onRetry((taskId) => retries.ask(taskId));
startClock();
startBadge(() => connection.tryNow());
connection.start();
