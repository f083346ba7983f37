// The connection badge, the time of the last update, and what is to be done when the login has ended.

import { hubTime, showAge } from "../clock.js";
import { announce } from "./announcement.js";
import { setText } from "./rows.js";

const page = document.documentElement;
const text = document.querySelector("#connection-text");
const button = document.querySelector("#connect-now");
const updated = document.querySelector("#updated");
const login = document.querySelector("#login");
const timeOfDay = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

const SPOKEN = {
  live: "Live again",
  reconnecting: "Connection lost",
  stale: "Stale: the figures are old",
  offline: "Offline: the figures are old",
};

let status = null;
let wasLive = false;

export function start({ onStatus, onFrame, tryNow }) {
  onStatus(renderConnection);
  for (const type of ["snapshot", "patch", "events", "pong"]) onFrame(type, renderHeard);
  button.addEventListener("click", tryNow);
  login.querySelector("a").addEventListener("click", comeBackHere);
  setInterval(() => status && tell(), 1000);
}

function renderConnection(next) {
  const changed = status?.state !== next.state;
  const wasEnded = status?.sessionEnded ?? false;
  status = next;
  page.dataset.connection = next.state;
  if (!next.sessionEnded) login.close();
  else if (!wasEnded) login.showModal(); // over everything else that may be open
  if (changed && wasLive && !next.sessionEnded) announce(SPOKEN[next.state]);
  wasLive ||= next.state === "live";
  tell();
}

// The hub was heard just now.
function renderHeard() {
  showAge(updated, hubTime());
}

function comeBackHere({ currentTarget: link }) {
  const address = new URL(link.href);
  address.searchParams.set("next", location.pathname + location.search);
  link.href = address.href;
}

function tell() {
  button.hidden = status.state === "live" || (status.nextTry === null && !status.sessionEnded);
  setText(text, words());
}

function words() {
  const { state, brokenSince, sessionEnded } = status;
  if (state === "live") return "Live";
  if (sessionEnded) return "Offline: your login has ended";
  const since = `since ${timeOfDay.format(brokenSince)}`;
  if (state === "offline") return `Offline ${since}: this computer has no network`;
  if (state === "stale") return `Stale ${since}, ${next()}`;
  return `${wasLive ? "Reconnecting" : "Connecting"}, ${next()}`;
}

function next() {
  const seconds = Math.max(0, Math.ceil((status.nextTry - Date.now()) / 1000));
  return status.nextTry === null ? "trying…" : `next try in ${seconds} s`;
}
