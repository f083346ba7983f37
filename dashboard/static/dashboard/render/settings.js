// What somebody chooses for this browser: the theme, and notifications of conditions that appear or clear;
// by a service worker, so that a click on one finds the page again.

import { address } from "../ask.js";
import { hubTime } from "../clock.js";
import { byId, onClick, page, setText } from "../dom.js";
import { span } from "../format.js";

const { dataset: chosen } = page; // theme.js has filled it before the first paint
const theme = byId("theme");
const button = byId("notify");
const text = byId("notify-text"); // with what it may have to say

let registration = null; // while notifications are on

export function start({ onState }) {
  theme.value = chosen.theme ?? "system";
  theme.addEventListener("change", () => {
    chosen.theme = theme.value;
    remember("theme", theme.value);
  });
  onClick(document, "#notify", toggle);
  onState(["health"], ({ health }, previous) => registration && previous && tellChanges(health.details, previous.health.details));
  if (!obstacle() && chosen.notify === "on" && Notification.permission === "granted") turnOn();
  else show(text.dataset[obstacle() ?? "off"]);
}

function remember(name, value) {
  try {
    localStorage.setItem(`agentcom.${name}`, value);
  } catch {
    // Storage is blocked: it holds until the page is left.
  }
}

function obstacle() {
  if (!isSecureContext) return "insecure";
  if (!("serviceWorker" in navigator && "Notification" in window)) return "unknown";
  return Notification.permission === "denied" ? "denied" : undefined;
}

async function toggle() {
  if (registration) {
    registration = null;
    remember("notify", "off");
    return show(text.dataset.off);
  }
  setText(text, text.dataset.asking);
  if ((await Notification.requestPermission()) === "granted") await turnOn();
  else show(text.dataset[obstacle() ?? "unanswered"]);
}

async function turnOn() {
  try {
    await navigator.serviceWorker.register(button.dataset.worker, { scope: address("dashboard") });
    registration = await navigator.serviceWorker.ready;
    remember("notify", "on");
    show(text.dataset.on);
  } catch (error) {
    show(`Not possible here: ${error.message}`);
  }
}

function show(words) {
  button.ariaPressed = registration !== null;
  button.ariaDisabled = Boolean(obstacle());
  setText(button, registration ? "Turn off" : "Turn on");
  setText(text, words);
}

function tellChanges(now, before) {
  const known = new Map(before.map((condition) => [condition.code, condition]));
  for (const condition of now) {
    if (!known.delete(condition.code)) notify("appeared", condition, condition.severity === "critical" ? "Critical" : "Warning");
  }
  for (const condition of known.values()) notify("cleared", condition, `Cleared after ${span(hubTime() - condition.since)}`);
}

// The tag makes one of what several open tabs tell.
function notify(change, { code, since, message: body }, title) {
  const { href: icon } = document.querySelector("link[rel=icon]");
  registration.showNotification(`AgentCom: ${title}`, { body, icon, tag: `${code} ${since} ${change}` });
}
