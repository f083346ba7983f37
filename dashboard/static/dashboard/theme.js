// Before the first paint, and so no module: the theme that was chosen here, if one was.
try {
  document.documentElement.dataset.theme = localStorage.getItem("agentcom.theme") ?? "system";
} catch {
  // Storage is blocked: the system's preference decides.
}
