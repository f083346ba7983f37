// The page of the API. No module: the theme is set before the first paint.
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");

function setTheme() {
  const { theme = "system" } = root.dataset;
  root.classList.toggle("dark-mode", theme === "dark" || (theme === "system" && dark.matches));
}

setTheme();
dark.addEventListener("change", setTheme);

addEventListener("DOMContentLoaded", () => {
  const main = document.getElementById("docs");
  // Swagger UI leaves these without a name.
  new MutationObserver(() => {
    for (const select of main.querySelectorAll("select:not([aria-label], [id])")) select.ariaLabel = "Example";
  }).observe(main, { childList: true, subtree: true });
  SwaggerUIBundle({
    url: main.dataset.schema,
    domNode: main,
    docExpansion: "list",
    defaultModelsExpandDepth: 0, // the list of schemas is there, and folded
    displayRequestDuration: true,
    syntaxHighlight: false, // its colours are too faint to read
    validatorUrl: null, // nothing leaves this hub
    onComplete: () => { main.dataset.state = "shown"; },
  });
});
