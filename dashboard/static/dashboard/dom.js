// What all parts do to their elements.

export const page = document.documentElement;
export const byId = (id) => document.getElementById(id);

/** `act(element)` when one of `selector` in `container` is clicked, and not disabled. */
export function onClick(container, selector, act) {
  container.addEventListener("click", ({ target }) => {
    const element = target.closest(selector);
    if (element && element.ariaDisabled !== "true") act(element);
  });
}

/** An element that already says it is left alone: for a selection, for screen readers. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Of the parts of `panel` with `data-when` show those that name `situation`. */
export function showWhen(panel, situation) {
  for (const part of panel.querySelectorAll("[data-when]")) part.hidden = !part.dataset.when.split(" ").includes(situation);
}

/** Of a group of buttons press the one with this `data-NAME`. */
export function press(group, name, value) {
  for (const button of group.querySelectorAll("button")) button.ariaPressed = button.dataset[name] === value;
}

/** render/drawer.js opens it. */
export const taskAddress = (id) => `?task=${encodeURIComponent(id)}`;

const mouse = matchMedia("(hover: hover)");

/** What is about to be clicked must not move away. */
export function isPointedAt(element) {
  return mouse.matches && element.matches(":hover");
}

/** What is made of an unchanged row stays the same object. */
export function once(make) {
  const made = new WeakMap();
  return (row) => {
    if (!made.has(row)) made.set(row, make(row));
    return made.get(row);
  };
}

const region = byId("announcement");
const KEPT = 3; // what happens at once is not cut off

/** Have a screen reader say `text`, unasked. Keep it rare. */
export function announce(text) {
  region.append(Object.assign(document.createElement("p"), { textContent: text }));
  while (region.childElementCount > KEPT) region.firstElementChild.remove();
}
