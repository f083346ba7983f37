// Before the first paint, and so no module: the theme that was chosen here, if one was.
try {
  const theme = localStorage.getItem("agentcom.theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is blocked: the system's preference decides.
}
