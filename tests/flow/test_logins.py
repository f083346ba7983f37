"""Logins at a real hub: slowed down where they fail, one password at a time, and noted.

The addresses are what a proxy says, so that a test can have many.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from agentcom.logins import ADDRESS_S, ADDRESS_TRIES, NAME_S, NAME_TRIES, ROOM
from fleet.protocol import CLOSE_WRONG_TOKEN
from lab.harness.hub import Hub

SETTINGS = {"AGENTCOM_PROXY_COUNT": "1", "AGENTCOM_DASHBOARD_ACCESS": "staff"}
PASSWORD = "correct horse battery"
PEOPLE = f"""
from django.contrib.auth.models import Group, User
for number in range(8):
    user = User.objects.create_user(f"eve-{{number}}", password={PASSWORD!r}, is_staff=True)
    user.groups.set(Group.objects.filter(name="AgentCom viewer"))
"""
fresh = (f"198.51.100.{number}" for number in itertools.count(1))


class Browser:
    """At an address of its own."""

    def __init__(self, hub: Hub, address: str) -> None:
        self.address = address
        self.http = httpx.Client(base_url=hub.url, headers={"X-Forwarded-For": address}, timeout=20)
        self.http.get("/admin/login/")

    def log_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        return self.http.post("/admin/login/", data=self.form(name, password))

    def form(self, name: str, password: str) -> dict[str, str]:
        token = self.http.cookies["csrftoken"]
        return {"csrfmiddlewaretoken": token, "username": name, "password": password}


@pytest.fixture
def browsers() -> Iterator[ExitStack]:
    with ExitStack() as browsers:
        yield browsers


@pytest.fixture
def browser(hub: Hub, people: None, browsers: ExitStack) -> Any:
    def browser(address: str | None = None) -> Browser:
        found = Browser(hub, address or next(fresh))
        browsers.callback(found.http.close)
        return found

    return browser


@pytest.fixture(scope="module")
def people(hub: Hub) -> None:
    hub.manage("shell", "-v", "0", "-c", PEOPLE)


def assert_slowed(answer: httpx.Response, most_s: float) -> None:
    assert answer.status_code == 429
    wait_s = int(answer.headers["Retry-After"])
    assert 0 < wait_s <= most_s
    assert f"Try again in {wait_s} second" in answer.text


def test_a_name_has_five_tries_and_then_not_even_the_right_password_counts(browser: Any):
    guesser = browser()
    for _ in range(NAME_TRIES):
        assert guesser.log_in("eve-0", "wrong").status_code == 200
    assert_slowed(guesser.log_in("eve-0", "wrong"), NAME_S)
    assert_slowed(guesser.log_in("eve-0"), NAME_S)
    assert_slowed(browser().log_in("eve-0"), NAME_S)
    assert guesser.log_in("eve-1").status_code == 302


def test_the_owner_gets_in_from_where_they_were_before(browser: Any):
    home = browser()
    assert home.log_in("eve-2").status_code == 302
    guesser = browser()
    for _ in range(NAME_TRIES):
        guesser.log_in("eve-2", "wrong")
    assert_slowed(browser().log_in("eve-2"), NAME_S)
    assert browser(home.address).log_in("eve-2").status_code == 302
    for _ in range(NAME_TRIES):
        assert home.log_in("eve-2", "mistyped").status_code == 200
    assert_slowed(home.log_in("eve-2"), NAME_S)


def test_an_address_has_twenty_tries_whatever_the_names(browser: Any):
    guesser = browser()
    began, checked = time.monotonic(), 0
    while (answer := guesser.log_in(f"nobody-{checked}", "wrong")).status_code == 200:
        checked += 1
    returned = (time.monotonic() - began) / ADDRESS_S  # tries, meanwhile
    assert ADDRESS_TRIES <= checked <= ADDRESS_TRIES + returned + 1
    assert_slowed(answer, ADDRESS_S)
    assert browser().log_in("eve-3").status_code == 302


def test_what_is_no_guess_does_not_count(browser: Any):
    somebody = browser()
    for _ in range(NAME_TRIES + 1):
        assert somebody.log_in("eve-4", "").status_code == 200
        assert somebody.log_in("eve-4").status_code == 302


async def test_of_many_at_once_few_wait(hub: Hub, browser: Any):
    somebody = browser()
    cookies = {"csrftoken": somebody.http.cookies["csrftoken"]}
    async with httpx.AsyncClient(base_url=hub.url, cookies=cookies, timeout=20) as http:

        async def guess(number: int) -> httpx.Response:
            headers = {"X-Forwarded-For": f"203.0.113.{number}"}
            form = somebody.form(f"crowd-{number}", "wrong")
            return await http.post("/admin/login/", data=form, headers=headers)

        answers = await asyncio.gather(*(guess(number) for number in range(20)))
    checked = [answer for answer in answers if answer.status_code == 200]
    assert ROOM <= len(checked) < 20
    for answer in answers:
        if answer not in checked:
            assert_slowed(answer, 2)


# --- What the trail and the log have of it, once the minute is over or the hub has stopped


@pytest.mark.bound_s(90)
async def test_what_anybody_can_cause_is_counted(tmp_path: Path):
    with Hub(tmp_path / "hub", **SETTINGS) as hub:
        hub.manage("shell", "-v", "0", "-c", PEOPLE)
        viewer = {"Authorization": f"Bearer {hub.token('a-viewer', 'viewer')}"}
        submitter = {"Authorization": f"Bearer {hub.token('a-submitter', 'submitter')}"}
        with ExitStack() as closing:
            guesser = Browser(hub, "192.0.2.1")
            closing.callback(guesser.http.close)
            for name in ("eve-0", "hunter2-typed-as-a-name"):
                for _ in range(3):
                    guesser.log_in(name, "my-wrong-password")
            cookie = log_in_at(hub, "eve-1", closing)
        async with httpx.AsyncClient(base_url=hub.url, timeout=20) as http:
            for address in ("192.0.2.2", "192.0.2.3"):
                wrong = {"Authorization": "Bearer act_stolen", "X-Forwarded-For": address}
                for _ in range(100):
                    assert (await http.get("/api/tasks", headers=wrong)).status_code == 401
            for _ in range(10):
                body = {"scope": "hub", "reason": "no"}
                refused = await http.post("/api/holds", json=body, headers=viewer)
                assert refused.status_code == 403
                foreign = "/api/tasks/task-0000000000000000/cancel"
                answer = await http.post(foreign, json={}, headers=submitter)
                assert answer.status_code == 404
                enrol = {"code": "enrol_guess", "token": "act_" + "abcdefghijklmnop1234" * 2}
                assert (await http.post("/api/enrol", json=enrol)).status_code == 404
        await wrong_identifies(hub)
        await forbidden_act(hub, cookie)
        hub.terminate()
        assert_counted(hub)
        assert_logged(hub.log)


def log_in_at(hub: Hub, name: str, closing: ExitStack) -> dict[str, str]:
    person = Browser(hub, "192.0.2.9")
    closing.callback(person.http.close)
    assert person.log_in(name).status_code == 302
    return {"Cookie": f"agentcom_session={person.http.cookies['agentcom_session']}"}


async def wrong_identifies(hub: Hub) -> None:
    origin = {"X-Forwarded-For": "192.0.2.4"}
    async with connect(hub.ws_url, additional_headers=origin) as socket:
        for _ in range(3):
            await socket.send(json.dumps({"type": "identify", "token": "act_stolen"}))
        await socket.wait_closed()
        assert socket.close_code == CLOSE_WRONG_TOKEN
    kind = {"type": "identify", "token": hub.token("a-looker", "viewer")}
    async with connect(hub.ws_url, additional_headers=origin) as socket:
        await socket.send(json.dumps(kind))
        assert json.loads(await socket.recv())["error"] == "invalid_token"


async def forbidden_act(hub: Hub, cookie: dict[str, str]) -> None:
    origin = {"X-Forwarded-For": "192.0.2.9"}
    async with connect(hub.dashboard_url, additional_headers={**cookie, **origin}) as socket:
        for _ in range(4):
            hold = {"type": "lift_hold", "hold_id": "hold-0000000000000000"}
            await socket.send(json.dumps(hold))
            while (answer := json.loads(await socket.recv()))["type"] != "hold_result":
                pass
            assert answer["status"] == "forbidden"


def assert_counted(hub: Hub) -> None:
    names = "what, subject, actor, address, detail, outcome"
    found = hub.rows(
        f"SELECT {names}, SUM(count), COUNT(*) FROM agentcom_auditentry"
        f" WHERE outcome = 'refused' GROUP BY {names}"
    )
    counted = {row[:6]: (int(row[6]), row[7]) for row in found}
    no, anyone, guessed, nowhere = "refused", "anyone", "invalid_login", "127.0.0.1"
    hold = "hold-0000000000000000"
    wanted = {
        ("login", "eve-0", anyone, "192.0.2.1", guessed, no): 3,
        ("login", "unknown", anyone, "192.0.2.1", guessed, no): 3,
        ("token.wrong", "", anyone, "192.0.2.2", "", no): 100,
        ("token.wrong", "", anyone, "192.0.2.3", "", no): 100,
        ("token.wrong", "", anyone, "192.0.2.4", "", no): 3,
        ("call", "place_hold", "token:a-viewer", nowhere, "forbidden", no): 10,
        ("task.cancel", "", "token:a-submitter", nowhere, "not_found", no): 10,
        ("enrolment.use", "", anyone, nowhere, "code_invalid", no): 10,
        ("identify", "", "token:a-looker", "192.0.2.4", "forbidden", no): 1,
        ("hold.lift", hold, "user:eve-1", "192.0.2.9", "forbidden", no): 4,
    }
    assert {key: count for key, (count, _) in counted.items()} == wanted
    assert max(rows for _, rows in counted.values()) <= 2  # the test may see a minute's end


def assert_logged(log: str) -> None:
    for said in (
        "token.wrong refused: anyone from 192.0.2.2",
        "token.wrong refused: anyone from 192.0.2.4",
        "login eve-0 refused (invalid_login): anyone from 192.0.2.1",
        "call place_hold refused (forbidden): token:a-viewer",
    ):
        assert 1 <= log.count(said) <= 4, said
    for secret in ("act_stolen", "enrol_guess", "my-wrong-password", "hunter2", PASSWORD):
        assert secret not in log
