// The page's one live region: what a screen reader says without being asked. Keep it rare.

const region = document.querySelector("#announcement");
const KEPT = 3; // two things may happen at once; the older must not be cut off by the newer

export function announce(text) {
  const line = document.createElement("p");
  line.textContent = text;
  region.append(line);
  while (region.childElementCount > KEPT) region.firstElementChild.remove();
}
