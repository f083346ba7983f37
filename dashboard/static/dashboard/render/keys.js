// Keys, as templates/dashboard/_shortcuts.html lists them, and the boxes that open over the page
// (`<details class="popover">`): one at a time, closed by Escape or a click elsewhere.

import { byId } from "../dom.js";

const boxes = [...document.querySelectorAll("details.popover")];

const KEYS = {
  "?": () => byId("shortcuts").showModal(),
  "/": () => {
    byId("agent-filter").focus();
    byId("agent-filter").select();
  },
  h: () => {
    byId("health").open = !byId("health").open;
    byId("health").querySelector("summary").focus();
  },
};

export function start() {
  document.addEventListener("click", ({ target }) => {
    // A link in the box leads away from it.
    for (const box of boxes) if (!box.contains(target) || target.closest("a")) box.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || document.querySelector("dialog:modal")) return;
    const act = event.key === "Escape" ? closing(boxes.find((box) => box.open)) : !isTyping(event.target) && KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function closing(box) {
  return box && (() => {
    box.open = false;
    box.querySelector("summary").focus();
  });
}

function isTyping(element) {
  return element.matches("input, select, textarea, [contenteditable]");
}
