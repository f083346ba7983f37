"""Who may look at the dashboard when it is for staff."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lab.harness.hub import Hub

SETTINGS = {"AGENTCOM_DASHBOARD_ACCESS": "staff"}
LOGIN = "/admin/login/"
ADD_USER = """
from django.contrib.auth.models import User
leaving = [(name, True) for name in ("logout", "expiry", "password", "demotion")]
for name, staff in (("operator", True), ("visitor", False), *leaving):
    User.objects.create_user(name, password="correct horse", is_staff=staff)
"""

END_SESSIONS = """
import json, sys
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.utils import timezone
Session.objects.filter(session_key=json.load(sys.stdin)).update(expire_date=timezone.now())
user = User.objects.get(username="password")
user.set_password("another horse")
user.save()
User.objects.filter(username="demotion").update(is_staff=False)
"""


@pytest.fixture(scope="module")
def users(hub: Hub) -> None:
    hub.manage("shell", "-v", "0", "-c", ADD_USER)


@pytest.fixture
async def browser(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=hub.url, timeout=20) as browser:
        yield browser


async def log_in(browser: httpx.AsyncClient, name: str) -> httpx.Response:
    await browser.get(LOGIN)
    form = {"username": name, "password": "correct horse"}
    token = {"csrfmiddlewaretoken": browser.cookies["csrftoken"]}
    return await browser.post(LOGIN, data={**form, **token})


def cookies(browser: httpx.AsyncClient) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}


async def test_a_stranger_sees_nothing(hub: Hub, browser: httpx.AsyncClient):
    page = await browser.get("/dashboard")
    assert page.is_redirect
    assert LOGIN in page.headers["Location"]
    for path in ("/api/dashboard/state", "/api/agents"):
        answer = await browser.get(path)
        assert answer.status_code == 401
        assert answer.json()["error"] == "unauthorized"
    with pytest.raises(InvalidStatus) as refused:
        await connect(hub.dashboard_url)
    assert refused.value.response.status_code == 403
    assert (await browser.get("/health")).status_code == 200


async def test_staff_see_everything(hub: Hub, users: None, browser: httpx.AsyncClient):
    assert (await log_in(browser, "operator")).is_redirect
    assert (await browser.get("/dashboard")).status_code == 200
    assert (await browser.get("/api/dashboard/state")).status_code == 200
    async with connect(hub.dashboard_url, additional_headers=cookies(browser)) as socket:
        assert '"snapshot"' in str(await socket.recv())


async def test_another_user_is_no_staff(hub: Hub, users: None, browser: httpx.AsyncClient):
    await log_in(browser, "visitor")
    assert (await browser.get("/api/dashboard/state")).status_code in (401, 403)
    with pytest.raises(InvalidStatus) as refused:
        await connect(hub.dashboard_url, additional_headers=cookies(browser))
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("path", ["/dashboard", "/admin/", "/api/dashboard/state"])
async def test_a_session_that_no_database_can_look_for(browser: httpx.AsyncClient, path: str):
    answer = await browser.get(path, headers={"Cookie": r'agentcom_session="\000aaaaaaaa"'})
    assert answer.status_code == 400


async def test_somebody_elses_page_gets_nothing_from_a_staff_browser(
    hub: Hub, users: None, browser: httpx.AsyncClient
):
    await log_in(browser, "operator")
    headers = {**cookies(browser), "Origin": "http://evil.example"}
    with pytest.raises(InvalidStatus) as refused:
        await connect(hub.dashboard_url, additional_headers=headers)
    assert refused.value.response.status_code == 403


async def test_a_session_that_ends_closes_the_socket_with_a_word(hub: Hub, users: None):
    """However it ends; those of others stay."""
    async with AsyncExitStack() as leaving:
        sockets, keys = {}, {}
        for name in ("logout", "expiry", "password", "demotion", "operator"):
            browser = await leaving.enter_async_context(httpx.AsyncClient(base_url=hub.url))
            await log_in(browser, name)
            headers = cookies(browser)
            connecting = connect(hub.dashboard_url, additional_headers=headers)
            sockets[name] = await leaving.enter_async_context(connecting)
            keys[name] = browser.cookies["agentcom_session"]
            if name == "logout":
                token = {"csrfmiddlewaretoken": browser.cookies["csrftoken"]}
                await browser.post("/admin/logout/", data=token)
        await asyncio.to_thread(
            hub.manage, "shell", "-v", "0", "-c", END_SESSIONS, stdin=json.dumps(keys["expiry"])
        )
        stays = sockets.pop("operator")
        for name, socket in sockets.items():
            assert await last_frame(socket) == {"type": "session_ended"}, name
            assert socket.close_code == 4403, name
        await stays.send('{"type": "ping"}')
        while json.loads(await stays.recv())["type"] != "pong":
            pass


async def last_frame(socket: ClientConnection) -> Any:
    frame = None
    with suppress(ConnectionClosed):
        while True:
            frame = json.loads(await socket.recv())
    return frame
