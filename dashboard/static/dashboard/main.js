// Frames from the hub become a state, and each module shows its part.

import { synchronise } from "./clock.js";
import { Connection } from "./connection.js";
import { page } from "./dom.js";
import { fromSnapshot, withPatch } from "./state.js";
import * as words from "./words.js";
import * as activity from "./render/activity.js";
import * as agents from "./render/agents.js";
import * as badge from "./render/connection.js";
import * as deadLetters from "./render/deadletters.js";
import * as drawer from "./render/drawer.js";
import * as figures from "./render/figures.js";
import * as health from "./render/health.js";
import * as holds from "./render/holds.js";
import * as keys from "./render/keys.js";
import * as queue from "./render/queue.js";
import * as recent from "./render/recent.js";
import * as settings from "./render/settings.js";
import * as steer from "./render/steer.js";
import * as throughput from "./render/throughput.js";
import * as title from "./render/title.js";

const listeners = {}; // of `state`, of `status`, and of each type of frame
let state = null;

function listen(type, hear) {
  (listeners[type] ??= []).push(hear);
}

function tell(type, ...news) {
  for (const hear of listeners[type] ?? []) hear(...news);
}

const home = location.origin + page.dataset.base;
const socketHome = home.replace(/^http/, "ws");
const connection = new Connection(`${socketHome}/ws/dashboard`, {
  onFrame: (frame) => tell(frame.type, frame),
  onStatus: (status) => tell("status", status),
});

// What a module's `start` gets:
const context = {
  /** `show(state, previous)` when one of these sections is new; `previous` is null at first. */
  onState: (sections, show) => listen("state", (now, previous) => {
    if (sections.some((section) => now[section] !== previous?.[section])) show(now, previous);
  }),
  /** `hear(frame)` for each of this type, once the state has it. */
  onFrame: listen,
  /** `hear(status)`, see connection.js. */
  onStatus: (hear) => listen("status", hear),
  send: (message) => connection.send(message),
  tryNow: () => connection.tryNow(),
};

function show(next) {
  const previous = state;
  state = next;
  tell("state", next, previous);
  page.dataset.seq = next.seq;
}

listen("snapshot", ({ data }) => {
  synchronise(data.timestamp);
  show(fromSnapshot(data));
});
listen("patch", (frame) => state && show(withPatch(state, frame)));

for (const place of document.querySelectorAll("[data-origin]")) place.textContent = home;
// In this order they hear what is new.
for (const module of [
  words, badge, title, health, figures, holds, agents, settings, keys,
  activity, deadLetters, steer, drawer, queue, recent, throughput,
]) module.start(context);
connection.start();
