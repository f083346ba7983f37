// The dashboard: frames from the hub become a state, and each module shows its part of it.

import { startClock, synchronise } from "./clock.js";
import { Connection } from "./connection.js";
import { fromSnapshot, withPatch } from "./state.js";
import * as activity from "./render/activity.js";
import * as agents from "./render/agents.js";
import * as badge from "./render/connection.js";
import * as deadLetters from "./render/deadletters.js";
import * as drawer from "./render/drawer.js";
import * as figures from "./render/figures.js";
import * as title from "./render/title.js";
import * as health from "./render/health.js";
import * as notifications from "./render/notifications.js";
import * as popovers from "./render/popovers.js";
import * as queue from "./render/queue.js";
import * as recent from "./render/recent.js";
import * as shortcuts from "./render/shortcuts.js";
import * as theme from "./render/theme.js";
import * as titles from "./titles.js";
import * as throughput from "./render/throughput.js";

const MODULES = [
  titles, badge, title, health, figures, agents, theme, notifications, popovers, shortcuts,
  activity, deadLetters, drawer, queue, recent, throughput,
];

const listeners = { state: [], status: [], frame: {} };
let state = null;

const socketOrigin = location.origin.replace(/^http/, "ws");
const connection = new Connection(`${socketOrigin}/ws/dashboard`, {
  onFrame: (frame) => {
    for (const hear of listeners.frame[frame.type] ?? []) hear(frame);
  },
  onStatus: (status) => {
    for (const hear of listeners.status) hear(status);
  },
});

// What a module's `start` gets:
const context = {
  /** `show(state, previous)` after every snapshot and patch; `previous` is null the first time. */
  onState: (show) => listeners.state.push(show),
  /** `hear(frame)` for every frame of this type, after the state has taken it in. */
  onFrame: (type, hear) => (listeners.frame[type] ??= []).push(hear),
  /** `hear(status)` whenever the connection's status changes, see connection.js. */
  onStatus: (hear) => listeners.status.push(hear),
  /** Send a message to the hub; false where there is no connection to take it. */
  send: (message) => connection.send(message),
  /** Connect without waiting for the backoff. */
  tryNow: () => connection.tryNow(),
};

function show(next) {
  const previous = state;
  state = next;
  for (const render of listeners.state) render(next, previous);
  document.documentElement.dataset.seq = next.seq;
}

context.onFrame("snapshot", ({ data }) => {
  synchronise(data.timestamp);
  show(fromSnapshot(data));
});
context.onFrame("patch", (frame) => {
  if (state) show(withPatch(state, frame));
});

for (const place of document.querySelectorAll("[data-origin]")) place.textContent = location.origin;
for (const place of document.querySelectorAll("[data-socket]")) place.textContent = `${socketOrigin}/ws`;
for (const module of MODULES) module.start(context);
startClock();
connection.start();
