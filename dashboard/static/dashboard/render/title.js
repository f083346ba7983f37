// The tab's title: a page in the background tells with it what wants attention.

const known = { connection: "reconnecting", health: "ok", conditions: 0 };

/** Learn what is new of `{connection, health, conditions}`. */
export function setTitle(news) {
  Object.assign(known, news);
  const title = `${words(known)}AgentCom`;
  if (document.title !== title) document.title = title;
}

function words({ connection, health, conditions }) {
  if (connection === "offline") return "offline · ";
  return health === "ok" ? "" : `(${conditions}) ${health} · `;
}
