"""Secrets in tasks: people see a mask, the agent and the submitter get what was submitted."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from agentcom.redaction import MASK
from lab.harness.hub import Hub
from lab.kit.member import Member
from tests.flow.conftest import AS_DESCRIBED, Submit, View
from tests.flow.test_access import cookies, log_in

KEY = "sk-" + "Ab3" * 10
WORD = "hunter2hunter2"  # behind the key `password`
BEARER = "Zx3-" + "a1_B" * 9 + "xyz"
SECRETS = (KEY, WORD, BEARER)
SETTINGS = {
    "AGENTCOM_REDACT": "password,api_key",
    "AGENTCOM_REDACT_PATTERNS": r"sk-[A-Za-z0-9]{20,} never\sseen",
    "AGENTCOM_RETRY_BACKOFF_S": "0",
}
DESCRIPTION = f"Log in with {KEY} please"
METADATA = {"login": {"Password": WORD, "name": "eve"}}
ERROR = f'401 for Authorization: Bearer {BEARER} and {{"password": "{WORD}"}} and {KEY}'
ADD_USER = """
from django.contrib.auth.models import User
User.objects.create_superuser("operator", password="correct horse")
"""


def shows_none(text: str) -> bool:
    return not [secret for secret in SECRETS if secret in text]


@pytest.fixture
async def people(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=hub.url, timeout=20, event_hooks=AS_DESCRIBED) as people:
        yield people


async def dead(agent: Member, submit: Submit) -> str:
    task_id = await submit(agent.skill, DESCRIPTION, metadata=METADATA, max_retries=1)
    task = await agent.assigned()
    assert task["description"] == DESCRIPTION
    assert task["metadata"] == METADATA
    about = {"task_id": task_id, "generation": task["generation"]}
    await agent.connection.send("task_progress", **about, progress=1, message=f"trying {KEY}")
    await agent.say("task_failed", task, error=ERROR)
    return task_id


async def test_the_dashboard_shows_masks(
    agent: Member, submit: Submit, view: View, people: httpx.AsyncClient, api: httpx.AsyncClient
):
    before, subscriber = await view(), await view()
    await before.snapshot()
    await subscriber.snapshot()
    subscriber.subscribe()
    await agent.connection.send("status", status=f"with {KEY}")
    task_id = await dead(agent, submit)
    await before.until_event(task_id, "task_dead_letter")
    await subscriber.frame("patch")
    done = await submit(agent.skill, DESCRIPTION, metadata=METADATA)
    await agent.say("task_complete", await agent.assigned(), result={"api-key": KEY, "sum": 3})
    waits = await submit("nobody", DESCRIPTION)
    await before.until_event(waits, "task_submitted")
    seen = [await view()]
    await seen[0].snapshot()
    frames = [frame for viewer in (before, subscriber, *seen) for frame in viewer.frames]
    assert MASK in json.dumps(frames, ensure_ascii=False)
    assert shows_none(json.dumps(frames, ensure_ascii=False))
    for path in (
        "/api/dashboard/state",
        "/api/dashboard/queue",
        "/api/dashboard/dead-letters",
        f"/api/dashboard/tasks/{task_id}",
        f"/api/dashboard/tasks/{done}",
        "/dashboard",
        f"/dashboard/agents/{agent.agent_id}",
        f"/dashboard/submit?copy={task_id}",
    ):
        text = (await people.get(path)).text
        assert MASK in text, path
        assert shows_none(text), path
    shown = (await people.get(f"/api/dashboard/tasks/{task_id}")).json()
    assert shown["metadata"] == {"login": {"Password": MASK, "name": "eve"}}
    assert shown["description"] == f"Log in with {MASK} please"
    groups = (await people.get("/api/dashboard/dead-letters")).json()["groups"]
    for group in groups:
        letters = await people.get("/api/dashboard/dead-letters", params={"group": group["group"]})
        assert shows_none(letters.text)
    agents = await people.get("/api/agents")
    assert agent.agent_id in agents.text
    assert shows_none(agents.text)


async def test_who_has_a_token_gets_everything(
    agent: Member, submit: Submit, api: httpx.AsyncClient
):
    task_id = await dead(agent, submit)
    task = (await api.get(f"/api/tasks/{task_id}")).json()
    assert task["description"] == DESCRIPTION
    assert task["metadata"] == METADATA
    assert task["last_error"] == ERROR
    assert KEY in json.dumps(task["history"])


async def test_the_admin_shows_masks(hub: Hub, agent: Member, submit: Submit):
    task_id = await dead(agent, submit)
    await asyncio.to_thread(hub.manage, "shell", "-v", "0", "-c", ADD_USER)
    async with httpx.AsyncClient(base_url=hub.url, timeout=20) as browser:
        await log_in(browser, "operator")
        for path in (
            "/admin/tasks/task/",
            f"/admin/tasks/task/{await number_of(browser, task_id)}/change/",
            "/admin/agentcom/event/",
            f"/admin/agentcom/event/?q={task_id}",
            f"/admin/agents/agent/{agent.agent_id.replace('-', '-')}/change/",
        ):
            page = await browser.get(path, headers=cookies(browser), follow_redirects=True)
            assert page.status_code == 200, path
            assert MASK in page.text, path
            assert shows_none(page.text), path
        page = await browser.get(f"/admin/agentcom/event/?q={task_id}", headers=cookies(browser))
        entries = set(re.findall(r"/admin/agentcom/event/(\d+)/change/", page.text))
        assert entries
        for entry in entries:
            page = await browser.get(f"/admin/agentcom/event/{entry}/change/")
            assert page.status_code == 200
            assert shows_none(page.text)


async def number_of(browser: httpx.AsyncClient, task_id: str) -> str:
    page = await browser.get(f"/admin/tasks/task/?q={task_id}")
    number: str
    [number] = set(re.findall(r"/admin/tasks/task/([^/]+)/change/", page.text))
    return number


@pytest.mark.parametrize("options", [["--history"], ["--format", "csv"]], ids=["json", "csv"])
async def test_exports_have_masks_unless_told_otherwise(
    hub: Hub, agent: Member, submit: Submit, options: list[str]
):
    await dead(agent, submit)
    text = await asyncio.to_thread(hub.manage, "export", *options)
    assert MASK in text
    assert shows_none(text)
    text = await asyncio.to_thread(hub.manage, "export", "--with-secrets", *options)
    assert MASK not in text
    assert KEY in text
    assert WORD in text


async def test_a_copy_with_masks_is_not_submitted(
    agent: Member, submit: Submit, people: httpx.AsyncClient
):
    """Else an agent would get the mask instead of the secret."""
    task_id = await dead(agent, submit)
    page = await people.get(f"/dashboard/submit?copy={task_id}")
    assert "Secrets of the task were not copied" in page.text
    hidden = dict(re.findall(r'name="(csrfmiddlewaretoken|key)" value="(\w+)"', page.text))
    typed = {"description": f"Log in with {MASK} please", "needed_capabilities": "nobody"}
    answer = await people.post("/dashboard/submit", data={**hidden, **typed})
    assert answer.status_code == 400
    assert f"has {MASK} where a secret was" in answer.text
    typed["description"] = "Log in"
    assert (await people.post("/dashboard/submit", data={**hidden, **typed})).status_code == 303


async def test_the_log_shows_none(hub: Hub, agent: Member, submit: Submit, people: Any):
    await dead(agent, submit)
    await people.get("/dashboard", headers={"Host": f"x-{KEY}.example"})
    assert f"x-{MASK}" in hub.log
    assert shows_none(hub.log)
