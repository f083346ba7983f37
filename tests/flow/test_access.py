"""Who may look at the dashboard when it is for staff."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lab.harness.hub import Hub
from lab.kit.member import Member
from lab.kit.viewer import Frame, Viewer
from tests.flow.conftest import AS_DESCRIBED, Join, Submit

SETTINGS = {"AGENTCOM_DASHBOARD_ACCESS": "staff"}
LOGIN = "/admin/login/"
ADD_USER = """
from django.contrib.auth.models import Permission, User
LOOK = ["view_task", "view_agent"]
ACT = ["change_task", "change_agent"]  # which let one look, too
leaving = {name: LOOK for name in ("logout", "expiry", "password", "demotion", "blinded")}
demoted = {"demoted": LOOK + ACT, "demoted-to-nothing": ACT}
staff = {"operator": ACT, "looker": LOOK, "half": LOOK[:1], "newcomer": []}
staff["submitter"] = [*LOOK, "add_task"]
for name, may in {**staff, **leaving, **demoted}.items():
    user = User.objects.create_user(name, password="correct horse", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=may))
User.objects.create_user("visitor", password="correct horse")
"""
TAKE_AWAY = """
from django.contrib.auth.models import Permission, User
change_task = Permission.objects.get(codename="change_task")
for user in User.objects.filter(username__startswith="demoted"):
    user.user_permissions.remove(change_task)
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
User.objects.get(username="blinded").user_permissions.clear()
"""


@pytest.fixture(scope="module")
def users(hub: Hub) -> None:
    hub.manage("shell", "-v", "0", "-c", ADD_USER)


@pytest.fixture
async def browser(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=hub.url, timeout=20, event_hooks=AS_DESCRIBED) as browser:
        yield browser


async def log_in(browser: httpx.AsyncClient, name: str) -> httpx.Response:
    await browser.get(LOGIN)
    form = {"username": name, "password": "correct horse"}
    token = {"csrfmiddlewaretoken": browser.cookies["csrftoken"]}
    return await browser.post(LOGIN, data={**form, **token})


def cookies(browser: httpx.AsyncClient) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}


async def test_a_stranger_sees_nothing(hub: Hub, browser: httpx.AsyncClient):
    for path in ("/dashboard", "/dashboard/agents/nobody", "/dashboard/submit?copy=x"):
        page = await browser.get(path)
        assert page.is_redirect
        assert LOGIN in page.headers["Location"]
        assert quote(path) in page.headers["Location"]
    for path in ("/api/dashboard/state", "/api/agents"):
        answer = await browser.get(path)
        assert answer.status_code == 401
        assert answer.json()["error"] == "unauthorized"
    with pytest.raises(InvalidStatus) as refused:
        await connect(hub.dashboard_url)
    assert refused.value.response.status_code == 403
    assert (await browser.get("/health")).status_code == 200


@pytest.mark.parametrize("path", ["/api/schema", "/api/schema/sockets", "/api/docs"])
async def test_anybody_may_read_what_the_api_is(browser: httpx.AsyncClient, path: str):
    assert (await browser.get(path)).status_code == 200


async def test_the_schema_says_that_viewers_need_a_session_or_a_token(browser: httpx.AsyncClient):
    paths = (await browser.get("/api/schema")).json()["paths"]
    assert paths["/api/dashboard/state"]["get"]["security"] == [{"session": []}, {"token": []}]
    assert paths["/api/agents"]["get"]["security"] == [{"session": []}, {"token": []}]
    assert paths["/api/tasks"]["get"]["security"] == [{"token": []}]


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


@pytest.mark.parametrize("name", ["newcomer", "half"])
async def test_staff_without_the_permissions_to_view_are_not_let_in(
    hub: Hub, users: None, browser: httpx.AsyncClient, name: str
):
    """Nor does the admin show them those tasks or agents."""
    await log_in(browser, name)
    page = await browser.get("/dashboard")
    assert page.status_code == 403
    assert "permissions" in page.text
    for path in ("/api/dashboard/state", "/api/dashboard/queue", "/api/agents"):
        answer = await browser.get(path)
        assert answer.status_code == 403
        assert answer.json()["hint"] == "the permissions to view tasks and agents are needed"
    with pytest.raises(InvalidStatus) as refused:
        await connect(hub.dashboard_url, additional_headers=cookies(browser))
    assert refused.value.response.status_code == 403
    shown = [
        (await browser.get(f"/admin/{x}/")).status_code for x in ("tasks/task", "agents/agent")
    ]
    assert shown == ([403, 403] if name == "newcomer" else [200, 403])


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
        for name in ("logout", "expiry", "password", "demotion", "blinded", "operator"):
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


# --- What staff do


async def die(agent: Member, submit: Submit) -> str:
    """A task in the dead letter."""
    task_id = await submit(agent.skill, max_retries=1)
    await agent.say("task_failed", await agent.assigned(), error="no")
    return task_id


Enter = Callable[[str], Awaitable[Viewer]]


@pytest.fixture
async def enter(hub: Hub, users: None) -> AsyncIterator[Enter]:
    """Open the dashboard's socket with somebody's login."""
    async with AsyncExitStack() as leaving:

        async def enter(name: str) -> Viewer:
            browser = await leaving.enter_async_context(httpx.AsyncClient(base_url=hub.url))
            await log_in(browser, name)
            viewer = await Viewer.open(hub.port, headers=cookies(browser))
            return await leaving.enter_async_context(viewer)

        yield enter


async def retry(viewer: Viewer, task_id: str) -> Frame:
    viewer.send("retry_task", task_id=task_id)
    return await viewer.frame("retry_result")


async def forget(viewer: Viewer, agent_id: str) -> Frame:
    viewer.send("forget_agent", agent_id=agent_id)
    return await viewer.frame("forget_result")


async def test_who_may_only_look_may_not_act(
    join: Join, submit: Submit, api: httpx.AsyncClient, enter: Enter
):
    agent, gone = await join(), await join()
    task_id = await die(agent, submit)
    await gone.connection.request("sign_off")
    looker = await enter("looker")
    assert await retry(looker, task_id) == {
        "type": "retry_result",
        "task_id": task_id,
        "status": "forbidden",
        "detail": "the permission tasks.change_task is needed",
    }
    assert await forget(looker, gone.agent_id) == {
        "type": "forget_result",
        "agent_id": gone.agent_id,
        "status": "forbidden",
        "detail": "the permission agents.change_agent is needed",
    }
    assert (await api.get(f"/api/tasks/{task_id}")).json()["status"] == "dead_letter"
    assert (await api.get(f"/api/agents/{gone.agent_id}/state")).status_code == 200


async def test_who_may_act_is_named(
    join: Join, submit: Submit, api: httpx.AsyncClient, enter: Enter
):
    agent, gone = await join(), await join()
    task_id = await die(agent, submit)
    await gone.connection.request("sign_off")
    operator = await enter("operator")
    assert (await retry(operator, task_id))["status"] == "requeued"
    assert (await forget(operator, gone.agent_id))["status"] == "forgotten"
    history = (await api.get(f"/api/tasks/{task_id}")).json()["history"]
    by = {entry["event"]: entry["actor"] for entry in history}
    assert by["task_retried"] == "user:operator"
    assert by["task_submitted"].startswith("token:agent-")
    assert by["task_failed"] == f"agent:{agent.agent_id}"
    assert by["task_assigned"] == "hub"
    await operator.until(lambda viewer: forgotten(viewer) == ["user:operator"])


# Submitting a task


async def form(browser: httpx.AsyncClient) -> dict[str, str]:
    page = await browser.get("/dashboard/submit")
    hidden = dict(re.findall(r'name="(csrfmiddlewaretoken|key)" value="(\w+)"', page.text))
    assert page.status_code == 200
    # Nobody has this capability: agents of other tests must not get the task.
    return {**hidden, "description": "by hand", "needed_capabilities": "by-hand"}


async def test_who_submits_is_named(
    hub: Hub, users: None, browser: httpx.AsyncClient, api: httpx.AsyncClient
):
    await log_in(browser, "submitter")
    answer = await browser.post("/dashboard/submit", data=await form(browser))
    assert answer.status_code == 303
    task_id = answer.headers["Location"].removeprefix("/dashboard?task=")
    task = (await api.get(f"/api/tasks/{task_id}")).json()
    assert task["submitted_by"] == "user:submitter"
    assert [entry["actor"] for entry in task["history"]] == ["user:submitter"]


async def test_who_may_only_look_may_not_submit(hub: Hub, users: None, browser: httpx.AsyncClient):
    await log_in(browser, "looker")
    page = await browser.get("/dashboard/submit")
    assert page.status_code == 403
    assert "tasks.add_task" in page.text
    token = {"csrfmiddlewaretoken": browser.cookies["csrftoken"], "description": "by hand"}
    assert (await browser.post("/dashboard/submit", data=token)).status_code == 403


async def test_a_login_that_ended_does_not_lose_what_was_typed(
    hub: Hub, users: None, browser: httpx.AsyncClient
):
    await log_in(browser, "submitter")
    filled = await form(browser)
    browser.cookies.delete("agentcom_session")
    page = await browser.post("/dashboard/submit", data=filled)
    assert page.status_code == 403
    assert "Your login has ended" in page.text
    assert "by hand" in page.text


async def test_an_agents_page_leads_staff_to_the_admin(
    hub: Hub, users: None, browser: httpx.AsyncClient, join: Join
):
    agent = await join()
    await log_in(browser, "looker")
    page = await browser.get(f"/dashboard/agents/{agent.agent_id}")
    [admin] = re.findall(r'href="(/admin/agents/[^"]+)"', page.text)
    assert (await browser.get(admin)).status_code == 200


def forgotten(viewer: Viewer) -> list[str]:
    return [event["actor"] for event in viewer.events if event["type"] == "agent_forgotten"]


async def test_a_permission_that_is_taken_away_is_gone_on_an_open_socket(
    hub: Hub, join: Join, submit: Submit, enter: Enter
):
    agent = await join()
    still_looks, sees_nothing = await enter("demoted"), await enter("demoted-to-nothing")
    task_id = await die(agent, submit)
    assert (await retry(still_looks, task_id))["status"] == "requeued"
    await agent.say("task_complete", await agent.assigned(), result={})
    task_id = await die(agent, submit)
    await asyncio.to_thread(hub.manage, "shell", "-v", "0", "-c", TAKE_AWAY)
    assert (await retry(still_looks, task_id))["status"] == "forbidden"
    sees_nothing.send("retry_task", task_id=task_id)
    await sees_nothing.frame("session_ended")
    assert await sees_nothing.socket.closed == 4403


async def last_frame(socket: ClientConnection) -> Any:
    frame = None
    with suppress(ConnectionClosed):
        while True:
            frame = json.loads(await socket.recv())
    return frame
