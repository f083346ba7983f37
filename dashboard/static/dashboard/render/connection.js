// The connection badge, the last update, and the way back when the login has ended.

import { hubTime, showAge } from "../clock.js";
import { announce, byId, onClick, page, setText } from "../dom.js";
import { absolute } from "../format.js";

const text = byId("connection-text"); // with what is said aloud of each state
const login = byId("login");

let status = {};
let wasLive = false;

export function start({ onStatus, onFrame, tryNow }) {
  onStatus(show);
  for (const type of ["snapshot", "patch", "events", "pong", "unchanged"]) onFrame(type, () => showAge(byId("updated"), hubTime()));
  onClick(document, "#connect-now", tryNow);
  onClick(login, "a", comeBackHere);
}

function show(next) {
  const { state, nextTry, sessionEnded } = next;
  page.dataset.connection = state;
  if (!sessionEnded) login.close();
  else if (!status.sessionEnded) login.showModal(); // over everything else that may be open
  if (status.state !== state && wasLive && !sessionEnded) announce(text.dataset[state]);
  wasLive ||= state === "live";
  status = next;
  byId("connect-now").hidden = state === "live" || (nextTry === null && !sessionEnded);
  setText(text, words(next));
}

function comeBackHere(link) {
  const address = new URL(link.href);
  address.searchParams.set("next", location.pathname + location.search);
  link.href = address.href;
}

function words({ state, brokenSince, nextTry, sessionEnded }) {
  if (sessionEnded) return text.dataset.ended;
  if (state === "live" || state === "polling") return text.dataset[`${state}Text`];
  const since = absolute(brokenSince).slice(11, 19);
  if (state === "offline") return `Offline since ${since}: this computer has no network`;
  const seconds = Math.max(0, Math.ceil((nextTry - Date.now()) / 1000));
  const word = state === "stale" ? `Stale since ${since}` : wasLive ? "Reconnecting" : "Connecting";
  return `${word}, ${nextTry === null ? "trying…" : `next try in ${seconds} s`}`;
}
