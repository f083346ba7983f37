// The switch between dark and light; theme.js sets what was chosen before the first paint.
// Whoever draws with colours of their own (charts) listens for `theme-changed` on the document.

import { byId } from "../dom.js";
import { remember } from "../memory.js";

const { dataset } = document.documentElement;

export function start() {
  const choice = byId("theme");
  choice.value = dataset.theme ?? "system";
  choice.addEventListener("change", () => {
    dataset.theme = choice.value;
    remember("theme", choice.value);
    tell();
  });
  matchMedia("(prefers-color-scheme: light)").addEventListener("change", tell);
}

function tell() {
  document.dispatchEvent(new Event("theme-changed"));
}
