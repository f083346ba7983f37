// Boxes that open over the page (`<details class="popover">`): one at a time, closed by Escape or a click elsewhere.

const boxes = [...document.querySelectorAll("details.popover")];

export function start() {
  document.addEventListener("click", ({ target }) => {
    for (const box of boxes) if (box.open && leaves(box, target)) box.open = false;
  });
  document.addEventListener("keydown", (event) => {
    const open = boxes.find((box) => box.open);
    if (event.key !== "Escape" || !open || event.defaultPrevented) return;
    event.preventDefault();
    open.open = false;
    open.querySelector("summary").focus();
  });
}

// A link in the box leads away from it.
function leaves(box, target) {
  return !box.contains(target) || target.closest("a") !== null;
}
