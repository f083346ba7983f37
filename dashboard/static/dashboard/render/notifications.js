// Notifications of conditions that appear or clear. Off until asked for; through a service worker,
// so that a click on one finds the page again.

import { span } from "../format.js";
import { hubTime } from "../clock.js";
import { recall, remember } from "../memory.js";
import { setText } from "./rows.js";

const SCOPE = "/dashboard";
const button = document.querySelector("#notify");
const text = document.querySelector("#notify-text");

let registration = null;

export function start({ onState }) {
  button.addEventListener("click", toggle);
  onState(({ health }, previous) => {
    if (registration && previous && health !== previous.health) tellChanges(health.details, previous.health.details);
  });
  const reason = whyNot();
  if (!reason && recall("notify") === "on") turnOn();
  else show(false, reason);
}

function whyNot() {
  if (!isSecureContext) return "Browsers allow notifications only over HTTPS or on localhost.";
  if (!("serviceWorker" in navigator && "Notification" in window)) return "This browser has no notifications.";
  if (Notification.permission === "denied") return "Blocked: this browser’s settings for this site forbid notifications.";
  return "";
}

async function toggle() {
  if (button.ariaDisabled === "true") return;
  if (registration) {
    registration = null;
    remember("notify", null);
    show(false);
    return;
  }
  setText(text, "Waiting for this browser’s permission…");
  const permission = await Notification.requestPermission();
  if (permission === "granted") await turnOn();
  else show(false, whyNot() || "Not allowed yet: the browser’s question was left unanswered.");
}

async function turnOn() {
  if (Notification.permission !== "granted") {
    show(false);
    return;
  }
  try {
    await navigator.serviceWorker.register(button.dataset.worker, { scope: SCOPE });
    registration = await navigator.serviceWorker.ready;
    remember("notify", "on");
    show(true);
  } catch (error) {
    show(false, `Not possible here: ${error.message}`);
  }
}

function show(isOn, reason = "") {
  button.ariaPressed = String(isOn);
  button.ariaDisabled = String(whyNot() !== "");
  setText(button, isOn ? "Turn off" : "Turn on");
  setText(text, reason || (isOn ? "On, while this page is open, in a background tab too." : "Off. Tells when a condition appears or clears."));
}

function tellChanges(now, before) {
  const known = new Map(before.map((condition) => [condition.code, condition]));
  for (const condition of now) {
    if (!known.delete(condition.code)) notify("appeared", condition, condition.severity === "critical" ? "Critical" : "Warning");
  }
  for (const condition of known.values()) {
    notify("cleared", condition, `Cleared after ${span(hubTime() - condition.since)}`);
  }
}

// The tag makes one of what several open tabs tell.
function notify(change, { code, since, message }, title) {
  registration.showNotification(`AgentCom: ${title}`, {
    body: message,
    icon: document.querySelector("link[rel=icon]").href,
    tag: `${code} ${since} ${change}`,
  });
}
