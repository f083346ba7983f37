// Before the first paint, and so no module: what was chosen in this browser, see render/settings.js.
try {
  const { "agentcom.theme": theme = "system", "agentcom.notify": notify = "off" } = localStorage;
  Object.assign(document.documentElement.dataset, { theme, notify });
} catch {
  // Storage is blocked: the system's preference decides.
}
