"""What browsers are refused: pages of others, foreign names, frames, caches.

The tables are attacks, each with its answer, sent byte by byte to a real hub.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentcom.doors import DATA_POLICY, PAGE_POLICY
from lab.harness.hub import Hub
from lab.kit.sockets import HOST
from tests.flow.test_access import form

SETTINGS = {
    "AGENTCOM_ALLOWED_HOSTS": "127.0.0.1,localhost,hub.example",
    "AGENTCOM_TRUSTED_ORIGINS": "https://console.example,https://*.apps.example:8443",
}
BEHIND_TLS = {
    "AGENTCOM_DASHBOARD_ACCESS": "staff",
    "AGENTCOM_SECURE": "true",
    "AGENTCOM_SECRET_KEY": "k" * 50,
    "AGENTCOM_ALLOWED_HOSTS": "127.0.0.1,hub.example",
}
ADD_USER = """
from django.contrib.auth.models import User
User.objects.create_superuser("submitter", password="correct horse")
"""
SOCKETS = ["/ws", "/ws/tasks", "/ws/dashboard"]
OPENED = 101


async def answer_to(hub: Hub, request: str, headers: Mapping[str, str], body: str = "") -> int:
    """The status of the answer to `METHOD /path`, with exactly these headers."""
    reader, writer = await asyncio.open_connection(HOST, hub.port)
    try:
        sent = {"Content-Length": str(len(body)), **headers} if body else headers
        lines = [f"{request} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
        writer.write("\r\n".join([*lines, "", body]).encode())
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()


async def handshake(hub: Hub, path: str, **headers: str) -> int:
    """The status of the answer to a socket's handshake. `PORT` in a header is the hub's."""
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    asked = {name.replace("_", "-"): at(hub, value) for name, value in headers.items()}
    return await answer_to(
        hub, f"GET {path}", {"Host": at(hub, "127.0.0.1:PORT"), **asked, **upgrade}
    )


def at(hub: Hub, text: str) -> str:
    return text.replace("PORT", str(hub.port))


# --- Sockets

OWN = "127.0.0.1:PORT"
HANDSHAKES = [
    # Host, Origin, answer
    pytest.param(OWN, None, OPENED, id="a program"),
    pytest.param("localhost:PORT", None, OPENED, id="a program, by another name"),
    pytest.param(OWN, "http://127.0.0.1:PORT", OPENED, id="the hub's own page"),
    pytest.param("localhost:PORT", "http://localhost:PORT", OPENED, id="... by another name"),
    pytest.param("LOCALHOST:PORT", "http://localhost:PORT", OPENED, id="... in capitals"),
    pytest.param("hub.example", "http://hub.example", OPENED, id="... behind a proxy"),
    pytest.param("hub.example:80", "http://hub.example", OPENED, id="... with its usual port"),
    pytest.param(OWN, "https://console.example", OPENED, id="a trusted page"),
    pytest.param(OWN, "https://console.example:443", OPENED, id="... with its usual port"),
    pytest.param(OWN, "https://a.apps.example:8443", OPENED, id="... by its ending"),
    pytest.param(OWN, "http://127.0.0.1:5173", 403, id="another port"),
    pytest.param(OWN, "http://127.0.0.1", 403, id="no port"),
    pytest.param(OWN, "https://127.0.0.1:PORT", 403, id="another scheme"),
    pytest.param(OWN, "ws://127.0.0.1:PORT", 403, id="no page's scheme"),
    pytest.param(OWN, "http://localhost:PORT", 403, id="another name of the hub"),
    pytest.param("hub.example", "https://hub.example", 403, id="TLS that nobody told of"),
    pytest.param("hub.example", "http://a.hub.example", 403, id="a subdomain"),
    pytest.param("hub.example", "http://hub.example.", 403, id="a dot more"),
    pytest.param(OWN, "http://evil.example", 403, id="another site"),
    pytest.param(OWN, "http://127.0.0.1:PORT.evil.example", 403, id="the hub's as a beginning"),
    pytest.param(OWN, "http://evil.example/127.0.0.1:PORT", 403, id="... as a path"),
    pytest.param(OWN, "http://127.0.0.1:PORT@evil.example", 403, id="... as a user"),
    pytest.param(OWN, "http://evil.example@127.0.0.1:PORT", 403, id="with a user"),
    pytest.param(OWN, "null", 403, id="a sandbox"),
    pytest.param(OWN, "file://", 403, id="a file"),
    pytest.param(OWN, "chrome-extension://abcdef", 403, id="an extension"),
    pytest.param(OWN, "127.0.0.1:PORT", 403, id="no scheme"),
    pytest.param(OWN, "http://console.example", 403, id="a trusted name without TLS"),
    pytest.param(OWN, "https://console.example:8443", 403, id="... on another port"),
    pytest.param(OWN, "https://apps.example:8443", 403, id="the ending alone"),
    pytest.param(OWN, "https://a.apps.example", 403, id="the ending without its port"),
    pytest.param(OWN, "https://evilapps.example:8443", 403, id="no name below the ending"),
    pytest.param("evil.example:PORT", "http://evil.example:PORT", 403, id="DNS rebinding"),
    pytest.param("evil.example:PORT", None, 403, id="a foreign name"),
    pytest.param("evil.example", "https://console.example", 403, id="... from a trusted page"),
    pytest.param("127.0.0.1.evil.example", None, 403, id="a name that begins like the hub's"),
    pytest.param("192.0.2.1:PORT", None, 403, id="a foreign address"),
    pytest.param("hub.example:PORT@evil.example", None, 403, id="no name at all"),
]


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize(("host", "origin", "answer"), HANDSHAKES)
async def test_who_may_open_a_socket(hub: Hub, path: str, host: str, origin: str, answer: int):
    headers = {"Host": host} if origin is None else {"Host": host, "Origin": origin}
    told = await handshake(hub, path, **headers)
    # Daphne itself answers 400 to what it cannot parse.
    assert told == answer or (answer == 403 and told == 400)


async def test_a_handshake_without_a_name(hub: Hub):
    reader, writer = await asyncio.open_connection(HOST, hub.port)
    writer.write(
        b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        + base64.b64encode(os.urandom(16))
        + b"\r\n\r\n"
    )
    assert (await reader.readline()).split()[1] in (b"400", b"403")
    writer.close()


async def test_the_log_says_which_setting_to_use(tmp_path: Path):
    """A hub of its own: only some refusals a minute are logged."""
    with Hub(tmp_path, **SETTINGS) as hub:
        for host, origin in (
            ("typed.example", ""),
            ("typed.example", ""),
            ("hub.example", "http://hub.example:8080"),
            ("hub.example", "https://hub.example"),
            ("hub.example", "http://page.example"),
        ):
            await handshake(hub, "/ws", Host=host, **({"Origin": origin} if origin else {}))
        await answer_to(hub, "GET /dashboard", {"Host": "page-host.example"})
        await answer_to(hub, "GET /api/tasks", {"Host": "api-host.example"})
        told = {"Host": f"127.0.0.1:{hub.port}", "Sec-Fetch-Site": "same-site"}
        await answer_to(hub, "POST /api/tasks", {**told, "Origin": "http://127.0.0.1:1"}, "{}")
        lines = hub.log.splitlines()
    for name in ("page-host", "api-host"):
        [line] = [line for line in lines if f"Refused a GET for '{name}.example'" in line]
        assert line.endswith("add it to AGENTCOM_ALLOWED_HOSTS.")
    [line] = [line for line in lines if "Refused a POST of a page of 'http://127.0.0.1:1'" in line]
    assert line.endswith("add its origin to AGENTCOM_TRUSTED_ORIGINS.")
    assert one(lines, "'typed.example'").endswith("add it to AGENTCOM_ALLOWED_HOSTS.")
    assert "$http_host" in one(lines, "'http://hub.example:8080'")
    assert "AGENTCOM_SECURE=true" in one(lines, "of 'https://hub.example'")
    assert one(lines, "page.example").endswith("add its origin to AGENTCOM_TRUSTED_ORIGINS.")


def one(lines: list[str], named: str) -> str:
    [line] = [line for line in lines if named in line and "Refused a socket" in line]
    return line


# --- Requests that change something

CHANGES = [
    # Sec-Fetch-Site, Origin, whether it is refused
    pytest.param(None, None, False, id="a program"),
    pytest.param("same-origin", "http://127.0.0.1:PORT", False, id="the hub's own page"),
    pytest.param("none", None, False, id="what a person typed"),
    pytest.param("cross-site", "https://console.example", False, id="a trusted page"),
    pytest.param("cross-site", "http://evil.example", True, id="another site"),
    pytest.param("Cross-Site", "http://evil.example", True, id="... in capitals"),
    pytest.param("cross-site", "null", True, id="a sandbox"),
    pytest.param("cross-site", None, True, id="a page without a name"),
    pytest.param("same-site", "http://127.0.0.1:5173", True, id="another port"),
    pytest.param("same-site", "https://127.0.0.1:PORT", True, id="another scheme"),
]


@pytest.mark.parametrize(("site", "origin", "is_refused"), CHANGES)
class TestChanges:
    def headers(self, hub: Hub, site: str | None, origin: str | None) -> dict[str, str]:
        given = {"Sec-Fetch-Site": site, "Origin": origin and at(hub, origin)}
        return {name: value for name, value in given.items() if value}

    async def test_of_the_api(self, hub: Hub, api: httpx.AsyncClient, site, origin, is_refused):
        """Even with a token, and nothing is changed."""
        headers = self.headers(hub, site, origin)
        before = await counted(api)
        task = {"description": "By a page", "needed_capabilities": ["nobody has this"]}
        answer = await api.post("/api/tasks", json=task, headers=headers)
        assert answer.status_code == (403 if is_refused else 201)
        assert await counted(api) == before + (not is_refused)
        if is_refused:
            assert answer.json()["error"] == "foreign_page"
        for method, path in (("POST", "cancel"), ("POST", "retry"), ("PATCH", ""), ("DELETE", "")):
            address = f"/api/holds/{path}" if method == "DELETE" else f"/api/tasks/none/{path}"
            answer = await api.request(method, address.rstrip("/") or "/", headers=headers)
            assert (answer.status_code == 403) is is_refused, method

    async def test_without_a_token(self, hub: Hub, site, origin, is_refused):
        asked = {"Host": f"127.0.0.1:{hub.port}", **self.headers(hub, site, origin)}
        told = await answer_to(hub, "POST /api/tasks", asked, json.dumps({"description": "x"}))
        assert told == (403 if is_refused else 401)

    async def test_of_a_page(self, hub: Hub, site, origin, is_refused):
        """A form with its secret and its cookie, as if a page had got hold of both."""
        headers = self.headers(hub, site, origin)
        async with httpx.AsyncClient(base_url=hub.url) as browser:
            filled = await form(browser)
            answer = await browser.post("/dashboard/submit", data=filled, headers=headers)
        assert answer.status_code == (403 if is_refused else 303)

    async def test_reading_is_for_the_browser_to_refuse(self, hub: Hub, site, origin, is_refused):
        """A link from another site leads to the page; scripts of others cannot read the answer."""
        headers = self.headers(hub, site, origin)
        async with httpx.AsyncClient(base_url=hub.url) as browser:
            answer = await browser.get("/dashboard", headers=headers)
        assert answer.status_code == 200
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def counted(api: httpx.AsyncClient) -> int:
    return int((await api.get("/api/tasks/stats")).json()["by_status"]["queued"])


async def test_no_preflight_is_answered(hub: Hub):
    """So no page of another origin may send a token."""
    async with httpx.AsyncClient(base_url=hub.url) as browser:
        headers = {
            "Origin": "https://console.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        answer = await browser.options("/api/tasks", headers=headers)
    assert answer.status_code in (401, 405)
    assert not [name for name in answer.headers if name.startswith("access-control")]


# --- Names

REBOUND = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "a b", "127.0.0.1@x"]


@pytest.mark.parametrize("host", REBOUND)
@pytest.mark.parametrize(
    "path", ["/dashboard", "/admin/login/", "/api/tasks", "/api/docs", "/static/dashboard/main.js"]
)
async def test_nothing_is_served_under_a_foreign_name(hub: Hub, host: str, path: str):
    assert await answer_to(hub, f"GET {path}", {"Host": host}) == 400


@pytest.mark.parametrize("host", ["evil.example", "10.1.2.3:4000"])
@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_probes_may_use_any_name(hub: Hub, host: str, path: str):
    assert await answer_to(hub, f"GET {path}", {"Host": host}) == 200


# --- What the answers tell the browser

PATHS = [
    # path, policy, whether it may be kept
    ("/dashboard", PAGE_POLICY, False),
    ("/dashboard/agents/nobody", PAGE_POLICY, False),
    ("/dashboard/submit", PAGE_POLICY, False),
    ("/admin/login/", PAGE_POLICY, False),
    ("/admin/", PAGE_POLICY, False),
    ("/api/docs", PAGE_POLICY, False),
    ("/nowhere", PAGE_POLICY, False),
    ("/static/dashboard/main.js", PAGE_POLICY, True),
    ("/static/admin/css/base.css", PAGE_POLICY, True),
    ("/api/dashboard/state", DATA_POLICY, False),
    ("/api/tasks", DATA_POLICY, False),
    ("/api/schema", DATA_POLICY, False),
    ("/api/nowhere", DATA_POLICY, False),
    ("/health", DATA_POLICY, False),
]


@pytest.mark.parametrize(("path", "policy", "is_kept"), PATHS)
async def test_every_answer_closes_the_doors(hub: Hub, path: str, policy: str, is_kept: bool):
    async with httpx.AsyncClient(base_url=hub.url) as browser:
        headers = (await browser.get(path)).headers
    assert headers["Content-Security-Policy"] == policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    if policy == PAGE_POLICY:
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    kept = headers["Cache-Control"]
    assert ("public" in kept) if is_kept else ("no-store" in kept or kept == "private, no-cache")


# --- Behind a proxy with TLS, for staff


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("secure"), **BEHIND_TLS) as hub:
        hub.manage("shell", "-v", "0", "-c", ADD_USER)
        yield hub


@pytest.fixture(scope="module")
def visitor(secure: Hub) -> str:
    """The cookies of somebody who is logged in, as his browser would send them to every port."""
    return asyncio.run(_logged_in(secure))


async def _logged_in(hub: Hub) -> str:
    through = {"Host": "hub.example", "X-Forwarded-Proto": "https", "Origin": "https://hub.example"}
    async with httpx.AsyncClient(base_url=hub.url, headers=through) as browser:
        jar: dict[str, str] = {}
        page = await browser.get("/admin/login/")
        jar |= dict(page.cookies)
        typed = {"username": "submitter", "password": "correct horse"}
        typed["csrfmiddlewaretoken"] = jar["csrftoken"]
        sent = "; ".join(f"{name}={value}" for name, value in jar.items())
        answer = await browser.post("/admin/login/", data=typed, headers={"Cookie": sent})
        assert answer.status_code == 302, answer.text
        for name in ("agentcom_session", "csrftoken"):
            [line] = [c for c in answer.headers.get_list("Set-Cookie") if c.startswith(name)]
            attributes = {part.strip().lower() for part in line.split(";")[1:]}
            assert {"httponly", "secure", "samesite=lax"} <= attributes, line
        jar |= dict(answer.cookies)
        return "; ".join(f"{name}={value}" for name, value in jar.items())


PROXIED = [
    # Host, X-Forwarded-Proto, Origin, answer
    pytest.param("hub.example", "https", "https://hub.example", OPENED, id="the hub's own page"),
    pytest.param("hub.example", "wss", "https://hub.example", OPENED, id="... of another proxy"),
    pytest.param("hub.example:8443", "https", "https://hub.example:8443", OPENED, id="... a port"),
    pytest.param("hub.example:443", "https", "https://hub.example", OPENED, id="... the usual one"),
    pytest.param("hub.example", "https", None, OPENED, id="a program with a session"),
    pytest.param("127.0.0.1:PORT", None, "http://127.0.0.1:PORT", OPENED, id="without the proxy"),
    pytest.param("hub.example", "https", "http://hub.example", 403, id="a page without TLS"),
    pytest.param("hub.example", "http", "https://hub.example", 403, id="a proxy without TLS"),
    pytest.param("hub.example", None, "https://hub.example", 403, id="a silent proxy"),
    pytest.param("hub.example", "https", "https://hub.example:8443", 403, id="a lost port"),
    pytest.param("hub.example", "https", "https://hub.example:5173", 403, id="another port"),
    pytest.param("hub.example", "https", "https://evil.hub.example", 403, id="a subdomain"),
    pytest.param("hub.example", "https", "https://evil.example", 403, id="another site"),
    pytest.param("evil.example", "https", "https://evil.example", 403, id="DNS rebinding"),
]


@pytest.mark.parametrize(("host", "proto", "origin", "answer"), PROXIED)
async def test_a_visitors_cookie_opens_nothing_for_others(
    secure: Hub, visitor: str, host: str, proto: str | None, origin: str | None, answer: int
):
    given = {"Host": host, "X_Forwarded_Proto": proto, "Origin": origin, "Cookie": visitor}
    headers: dict[str, Any] = {name: value for name, value in given.items() if value}
    assert await handshake(secure, "/ws/dashboard", **headers) == answer


async def test_without_a_cookie_there_is_nothing_to_open(secure: Hub):
    asked = {"Host": "hub.example", "X_Forwarded_Proto": "https"}
    assert await handshake(secure, "/ws/dashboard", **asked, Origin="https://hub.example") == 403


async def test_a_client_cannot_claim_tls_where_no_proxy_is(hub: Hub):
    """Without AGENTCOM_SECURE nobody's `X-Forwarded-Proto` counts."""
    asked = {"Host": "hub.example", "X_Forwarded_Proto": "https", "Origin": "https://hub.example"}
    assert await handshake(hub, "/ws", **asked) == 403
