// The switch between dark and light; theme.js sets what was chosen before the first paint.
// Whoever draws with colours of their own (charts) listens for `theme-changed` on the document.

import { recall, remember } from "../memory.js";

const root = document.documentElement;
const choice = document.querySelector("#theme");

export function start() {
  choice.value = recall("theme") ?? "system";
  choice.addEventListener("change", choose);
  matchMedia("(prefers-color-scheme: light)").addEventListener("change", tell);
}

function choose() {
  const theme = choice.value === "system" ? null : choice.value;
  remember("theme", theme);
  if (theme) root.dataset.theme = theme;
  else delete root.dataset.theme;
  tell();
}

function tell() {
  document.dispatchEvent(new CustomEvent("theme-changed"));
}
