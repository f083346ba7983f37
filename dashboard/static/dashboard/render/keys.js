// The keys of _shortcuts.html, and boxes over the page: one at a time, closed by Escape or a click elsewhere.

import { byId } from "../dom.js";

const boxes = [...document.querySelectorAll("details.popover")];
const TYPING = "input, select, textarea, [contenteditable]";
const KEYS = {
  "?": () => byId("shortcuts").showModal(),
  "/": () => {
    byId("agent-filter").focus();
    byId("agent-filter").select();
  },
  h: () => toggle(byId("health")),
};

export function start() {
  byId("show-shortcuts").onclick = KEYS["?"];
  // Before all others hear of the click: one of them may open a box.
  document.addEventListener("click", ({ target }) => {
    // A link in the box leads away from it.
    for (const box of boxes) if (!box.contains(target) || target.closest("a")) box.open = false;
  }, { capture: true });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || document.querySelector("dialog:modal")) return;
    const box = boxes.find((each) => each.open);
    if (event.key === "Escape" && box) toggle(box);
    else if (event.key in KEYS && !event.target.matches(TYPING)) KEYS[event.key]();
    else return;
    event.preventDefault();
  });
}

function toggle(box) {
  box.open = !box.open;
  box.querySelector("summary").focus();
}
