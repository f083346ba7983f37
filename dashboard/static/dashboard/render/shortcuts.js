// Keys. The list of them is the dialog's own markup, templates/dashboard/_shortcuts.html.

const dialog = document.querySelector("#shortcuts");
const filter = document.querySelector("#agent-filter");
const health = document.querySelector("#health");

const KEYS = {
  "?": () => dialog.showModal(),
  "/": () => {
    filter.focus();
    filter.select();
  },
  h: () => {
    health.open = !health.open;
    health.querySelector("summary").focus();
  },
};

export function start() {
  document.querySelector("#show-shortcuts").addEventListener("click", KEYS["?"]);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.querySelector("dialog:modal")) return;
    const act = KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function isTyping(element) {
  return element.matches("input, select, textarea, [contenteditable]");
}
