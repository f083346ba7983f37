// The connection badge: live, reconnecting with the next try, or offline with how old the figures are.

import { hubTime, showAge } from "../clock.js";
import { span } from "../format.js";
import { announce } from "./announcement.js";
import { setText } from "./rows.js";
import { setTitle } from "./title.js";

const page = document.documentElement;
const text = document.querySelector("#connection-text");
const button = document.querySelector("#connect-now");
const updated = document.querySelector("#updated");

const SPOKEN = { live: "Live again", reconnecting: "Connection lost", offline: "Offline: the figures are old" };

let status = null;
let wasLive = false;

export function start({ onStatus, onFrame, tryNow }) {
  onStatus(renderConnection);
  for (const type of ["snapshot", "patch", "events"]) onFrame(type, renderHeard);
  button.addEventListener("click", tryNow);
  setInterval(() => status && tell(), 1000);
}

function renderConnection(next) {
  const changed = status?.state !== next.state;
  status = next;
  page.dataset.connection = next.state;
  setTitle({ connection: next.state });
  if (changed && wasLive) announce(SPOKEN[next.state]);
  wasLive ||= next.state === "live";
  tell();
}

// The hub was heard just now.
function renderHeard() {
  showAge(updated, hubTime());
}

function tell() {
  button.hidden = status.state === "live" || status.nextTry === null;
  setText(text, words());
}

function words() {
  if (status.state === "live") return "Live";
  const next = status.nextTry === null ? "trying…" : `next try in ${seconds(status.nextTry)} s`;
  if (status.state === "offline") return `Offline for ${span(Date.now() - status.brokenSince)}, ${next}`;
  return wasLive ? `Reconnecting, ${next}` : `Connecting, ${next}`;
}

function seconds(at) {
  return Math.max(0, Math.ceil((at - Date.now()) / 1000));
}
