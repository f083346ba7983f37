// The tab's title and icon: a page in the background tells with them what wants attention.

const MOST = 9; // on the icon there is room for one digit

const icon = document.querySelector("link[rel=icon]");
const known = { connection: "reconnecting", health: "ok", conditions: 0, blocked: 0 };

/** Learn what is new of `{connection, health, conditions, blocked}`. */
export function setTitle(news) {
  Object.assign(known, news);
  const wants = known.conditions + known.blocked;
  const title = `${words(known, wants)}AgentCom`;
  if (document.title !== title) document.title = title;
  const address = new URL(icon.href);
  address.search = new URLSearchParams({ light: light(known), number: Math.min(wants, MOST) });
  if (icon.href !== address.href) icon.href = address.href;
}

function isOld({ connection }) {
  return connection === "stale" || connection === "offline";
}

function light(news) {
  return isOld(news) ? "unknown" : news.health;
}

function words(news, wants) {
  if (isOld(news)) return `${news.connection} · `;
  const number = wants ? `(${wants}) ` : "";
  return news.health === "ok" ? number : `${number}${news.health} · `;
}
