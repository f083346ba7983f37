// The service worker: a click on a notification shows the page again. It caches nothing.

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(showPage());
});

async function showPage() {
  const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  const home = new URL(self.registration.scope).pathname;
  const page = pages.find(({ url }) => new URL(url).pathname === home);
  return page ? page.focus() : self.clients.openWindow(home);
}
