"""The page without a hub: its real template and static files, and a socket that a test plays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.contrib.staticfiles import finders
from django.template.loader import render_to_string
from playwright.sync_api import Page, Route, WebSocketRoute

from dashboard import views

# As strict as the hub's own, which tests/browser/test_hub.py meets.
POLICY = "default-src 'self'; style-src 'self'; script-src 'self'"
ADDRESS = "http://hub.test"
# What a hub answers at which nothing has happened yet.
EMPTY = {
    "/api/dashboard/history": {"minutes": 60, "step_s": 60, "points": []},
    "/api/dashboard/queue": {"tasks": [], "count": 0, "next_cursor": None},
    "/api/dashboard/dead-letters": {"groups": [], "total": 0},
}


class Stage:
    """`open` shows a snapshot as the server paints it, and plays it to the scripts."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.heard: list[dict[str, Any]] = []
        self.sockets: list[WebSocketRoute] = []
        self.snapshot: dict[str, Any] = {}
        self.api: dict[str, Any] = dict(EMPTY)  # the JSON at a path, or at a path with its query
        self.reactions: dict[str, Callable[[dict[str, Any]], None]] = {}  # to messages, by type
        self.answers = True  # False: the hub is gone, or accepts and says nothing
        page.route(f"{ADDRESS}/**", self._serve)
        page.route_web_socket("**/ws/dashboard", self._welcome)

    def open(self, snapshot: dict[str, Any], query: str = "") -> None:
        self.snapshot = snapshot
        self.page.goto(f"{ADDRESS}/dashboard{query}")
        self.page.wait_for_selector("html[data-connection=live]")

    def send(self, **frame: Any) -> None:
        self.sockets[-1].send(json.dumps(frame))

    def patch(self, seq: int, **sections: Any) -> None:
        self.send(type="patch", seq=seq, data=sections)
        self.page.wait_for_selector(f'html[data-seq="{seq}"]')

    def _welcome(self, socket: WebSocketRoute) -> None:
        socket.on_message(self._hear)
        self.sockets.append(socket)
        if self.answers:
            self.send(type="snapshot", data=self.snapshot)

    def _hear(self, text: str | bytes) -> None:
        message = json.loads(text)
        self.heard.append(message)
        if react := self.reactions.get(message["type"]):
            react(message)

    def _serve(self, route: Route) -> None:
        path = route.request.url.removeprefix(ADDRESS)
        bare = path.partition("?")[0]
        if bare == "/dashboard":
            agents = [*self.snapshot["agents"], *self.snapshot["offline_agents"]]
            agents.sort(key=lambda agent: (agent["name"].lower(), agent["agent_id"]))
            shown = views.shown(self.snapshot, agents[:60])
            body = render_to_string("dashboard/page.html", shown)
            headers = {"Content-Security-Policy": POLICY}
            route.fulfill(body=body, content_type="text/html; charset=utf-8", headers=headers)
        elif bare == "/api/dashboard/state":
            # says nothing, as a hub that is gone, but the browser does not complain of it
            route.fulfill(status=204)
        elif path in self.api or bare in self.api:
            answer = self.api.get(path, self.api.get(bare))  # a text is JSON already
            text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
            route.fulfill(body=text, content_type="application/json")
        elif path.startswith("/dashboard/icon.svg"):
            route.fulfill(body="<svg/>", content_type="image/svg+xml")
        elif bare.startswith("/static/") and (found := finders.find(bare.removeprefix("/static/"))):
            route.fulfill(path=Path(found))
        else:
            route.fulfill(status=404)
