// Forms with `data-confirm` ask that question first. A script of its own, because the policy of the
// pages allows none within them.

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});
