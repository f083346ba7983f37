// Elements made by scripts. Children are elements or texts, and a text is always only a text.

/** `make("a", {href: "…", class: "id"}, "text", element)`; attributes that are null or false are left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** The address of a task on this page; render/drawer.js opens it. */
export function taskAddress(id) {
  return `?task=${encodeURIComponent(id)}`;
}

/** A link to a task that says `text`. */
export function taskLink(id, text) {
  return make("a", { href: taskAddress(id), dir: "auto" }, text);
}

/** A `<time>` that clock.js keeps current. */
export function ageElement() {
  return make("time", { "data-at": "" });
}

const mouse = matchMedia("(hover: hover)");

/** Whether somebody points at `element`: what is about to be clicked must not move away. */
export function isPointedAt(element) {
  return mouse.matches && element.matches(":hover");
}
