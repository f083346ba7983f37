"""The pages beside the dashboard, which anybody may see here: an agent's, and a new task's form."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from lab.harness.hub import Hub
from tasks.serializers import FIELDS
from tests.flow.conftest import Join, Submit

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
async def browser(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=hub.url, timeout=20) as browser:
        yield browser


def shown(page: httpx.Response, testid: str) -> str:
    """The text of the element, without markup."""
    found = re.search(rf'<(\w+)[^>]*? data-testid="{testid}"[^>]*>(.*?)</\1>', page.text, re.S)
    assert found, page.text
    return html.unescape(" ".join(re.sub("<[^>]+>", "", found[2]).split()))


# An agent's page


async def test_an_agent_that_works(browser: httpx.AsyncClient, join: Join, submit: Submit):
    agent = await join(name=HOSTILE, status=HOSTILE, accepts=["cancel"])
    address = f"/dashboard/agents/{agent.agent_id}"
    await submit(agent.skill, f"done {HOSTILE}")
    task = await agent.assigned()
    await agent.say("task_complete", task, result={}, tokens_used=1234)
    await submit(agent.skill, "lost on it", max_retries=1)
    await agent.say("task_failed", await agent.assigned(), error=f"Boom {HOSTILE}")
    task_id = await submit(agent.skill, f"now {HOSTILE}")
    await agent.say("task_accepted", await agent.assigned())

    page = await browser.get(address)
    assert page.status_code == 200
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert page.headers["Cache-Control"] == "no-store"
    assert HOSTILE not in page.text
    assert shown(page, "state") == "working"
    assert shown(page, "meaning") == "It accepted its task and works on it."
    assert shown(page, "task").startswith(f"Works on now {HOSTILE}, for ")
    assert f'href="/dashboard?task={task_id}"' in page.text
    assert shown(page, "accepts") == "It is asked to stop."
    assert (shown(page, "completed"), shown(page, "failed")) == ("1", "1")
    assert "1,234" in shown(page, "did")
    assert f"Boom {HOSTILE}" in shown(page, "failures")
    assert "Connected" in shown(page, "connections")
    assert "/admin/" not in page.text


async def test_an_agent_that_is_to_stop(
    browser: httpx.AsyncClient, api: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    task_id = await submit(agent.skill)
    await agent.say("task_accepted", await agent.assigned())
    await api.post(f"/api/tasks/{task_id}/cancel", json={"reason": "not needed"})
    page = await browser.get(f"/dashboard/agents/{agent.agent_id}")
    assert "It is asked to stop (not needed)" in shown(page, "task")
    assert shown(page, "accepts") == "It does not listen to such requests."
    await api.post(f"/api/tasks/{task_id}/cancel", json={"timeout_s": 0})
    page = await browser.get(f"/dashboard/agents/{agent.agent_id}")
    assert shown(page, "state") == "stopping"
    assert shown(page, "task").startswith("Has yet to stop")


async def test_what_holds_an_agent(browser: httpx.AsyncClient, api: httpx.AsyncClient, join: Join):
    agent, other = await join(), await join()
    holds = [
        {"scope": "agent", "subject": agent.agent_id, "reason": f"odd {HOSTILE}"},
        {"scope": "capability", "subject": agent.skill, "reason": "broken image"},
        {"scope": "agent", "subject": other.agent_id, "reason": "of another"},
    ]
    for hold in holds:
        assert (await api.post("/api/holds", json=hold)).status_code == 201
    page = await browser.get(f"/dashboard/agents/{agent.agent_id}")
    told = re.findall(r'data-testid="hold">(.*?)</p>', page.text)
    assert len(told) == 2
    assert "This agent" in told[1]
    assert "until somebody lifts it" in told[1]
    assert html.escape(HOSTILE) in told[1]
    assert f"What needs {agent.skill}" in told[0]
    assert shown(page, "meaning") == "It is free, and gets nothing new while it is on hold."


async def test_an_agent_that_signed_off(browser: httpx.AsyncClient, join: Join):
    agent = await join()
    await agent.connection.request("sign_off")
    page = await browser.get(f"/dashboard/agents/{agent.agent_id}")
    assert shown(page, "state") == "offline"
    assert shown(page, "meaning").startswith("It signed off")
    assert "Signed off" in shown(page, "connections")


@pytest.mark.parametrize(
    "path", ["nobody", "a/b", "%3Cscript%3Ealert(1)%3C/script%3E", "%C2%A0%7F"]
)
async def test_an_agent_that_the_hub_does_not_know(browser: httpx.AsyncClient, path: str):
    page = await browser.get(f"/dashboard/agents/{path}")
    assert page.status_code == 404
    assert "The hub knows no agent" in page.text
    assert HOSTILE not in page.text


async def test_the_page_is_only_read(browser: httpx.AsyncClient):
    assert (await browser.post("/dashboard/agents/nobody")).status_code == 403  # no CSRF token
    assert (await browser.put("/dashboard/submit")).status_code == 403


# The form


async def open_form(browser: httpx.AsyncClient, query: str = "") -> dict[str, str]:
    """What the form sends if nothing is changed."""
    page = await browser.get(f"/dashboard/submit{query}")
    assert page.status_code == 200, page.text
    return typed(page)


def typed(page: httpx.Response) -> dict[str, str]:
    inputs = re.findall(r'<input[^>]* name="(\w+)"[^>]*? value="([^"]*)"', page.text)
    areas = re.findall(r'<textarea[^>]* name="(\w+)"[^>]*>\n(.*?)</textarea>', page.text, re.S)
    choices = re.findall(
        r'<select[^>]* name="(\w+)".*?<option value="(\w+)" selected>', page.text, re.S
    )
    return {name: html.unescape(value) for name, value in [*inputs, *areas, *choices]}


async def send(browser: httpx.AsyncClient, form: dict[str, str]) -> httpx.Response:
    return await browser.post("/dashboard/submit", data=form)


async def submitted(browser: httpx.AsyncClient, form: dict[str, str]) -> str:
    answer = await send(browser, form)
    assert answer.status_code == 303, answer.text
    place, _, task_id = answer.headers["Location"].partition("?task=")
    assert place == "/dashboard"
    return task_id


async def seen(browser: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = (await browser.get(f"/api/dashboard/tasks/{task_id}")).json()
    return task


FULL = {
    "description": "Review it\r\nline by line",
    "priority": "high",
    "needed_capabilities": " review , python,",
    "assign_to": "somebody ",
    "metadata": '{"pull_request": 12}',
    "not_before": "2040-01-31T12:00",
    "complete_by": "2040-02-01T12:00:30",
    "on_overdue": "run",
    "max_retries": "7",
    "retry_backoff_s": "0.5",
    "max_reclaims": "1",
    "max_rejections": "2",
    "idle_timeout_s": "60",
    "run_timeout_s": "90",
}


async def test_a_submitted_task_has_all_that_was_typed(browser: httpx.AsyncClient):
    form = await open_form(browser)
    assert form.keys() == {"csrfmiddlewaretoken", "key", *FULL}
    task = await seen(browser, await submitted(browser, form | FULL))
    expected = {
        "description": "Review it\nline by line",
        "needed_capabilities": ["review", "python"],
        "assign_to": "somebody",
        "metadata": {"pull_request": 12},
        "on_overdue": "run",
        "max_retries": 7,
        "retry_backoff_s": 0.5,
        "max_reclaims": 1,
        "max_rejections": 2,
        "idle_timeout_s": 60,
        "run_timeout_s": 90,
        "status": "scheduled",
        "submitted_by": "anyone",
    }
    assert {name: task[name] for name in expected} == expected
    assert task["complete_by"] - task["not_before"] == 24 * 3_600_000 + 30_000
    assert [entry["actor"] for entry in task["history"]] == ["anyone"]


def test_the_form_has_every_field_of_a_submission():
    assert sorted(FULL) == sorted(FIELDS)


async def test_a_copy_of_a_task(browser: httpx.AsyncClient):
    task_id = await submitted(browser, await open_form(browser) | FULL)
    form = await open_form(browser, f"?copy={task_id}")
    again = await submitted(browser, form)
    assert again != task_id
    same = {"needed_capabilities", "metadata", "not_before", "complete_by", *FULL} - {"key"}
    first, second = await seen(browser, task_id), await seen(browser, again)
    assert {name: first[name] for name in same} == {name: second[name] for name in same}


async def test_a_copy_with_names_that_have_commas(
    browser: httpx.AsyncClient, api: httpx.AsyncClient
):
    needs = ["a, b", "[c"]
    body = {"description": HOSTILE, "needed_capabilities": needs}
    task_id = (await api.post("/api/tasks", json=body)).json()["task_id"]
    again = await submitted(browser, await open_form(browser, f"?copy={task_id}"))
    task = await seen(browser, again)
    assert (task["needed_capabilities"], task["description"]) == (needs, HOSTILE)


@pytest.mark.parametrize("task_id", ["task-0000000000000000", "nonsense"])
async def test_a_copy_of_nothing(browser: httpx.AsyncClient, task_id: str):
    page = await browser.get(f"/dashboard/submit?copy={task_id}")
    assert "does not know the task" in shown(page, "told")


async def test_the_same_form_submits_once(browser: httpx.AsyncClient):
    form = await open_form(browser) | {"description": "only once"}
    first = await submitted(browser, form)
    assert await submitted(browser, form) == first
    # whoever goes back and writes something else wants another task
    assert await submitted(browser, form | {"description": "another"}) != first


async def test_what_is_wrong_is_said_beside_each_field(browser: httpx.AsyncClient):
    wrong = {
        "description": " ",
        "needed_capabilities": "x" * 65,
        "metadata": "{",
        "complete_by": "2001-01-01T00:00",
        "max_retries": "many",
        "run_timeout_s": "0",
    }
    page = await send(browser, await open_form(browser) | wrong | {"assign_to": f'"{HOSTILE}'})
    assert page.status_code == 400
    faults = dict(re.findall(r'id="(\w+)-fault"><span[^>]*>.</span> (.*?)</p>', page.text))
    assert faults.keys() == wrong.keys()
    assert faults["complete_by"] == "It must be in the future."
    assert faults["metadata"].startswith("It is not valid JSON: ")
    assert faults["max_retries"] == "It must be a whole number from 0 to 100."
    assert faults["run_timeout_s"].startswith("It must be 1 to")
    kept = typed(page)
    assert {name: kept[name] for name in wrong} == wrong
    assert kept["assign_to"] == f'"{HOSTILE}'
    assert HOSTILE not in page.text
    assert "<details open>" in page.text
    assert await submitted(browser, kept | dict.fromkeys(wrong, "") | {"description": "fine"})


async def test_nobody_elses_page_submits(browser: httpx.AsyncClient):
    form = await open_form(browser) | {"description": "forged"}
    forged = await browser.post(
        "/dashboard/submit", data=form, headers={"Origin": "http://evil.example"}
    )
    assert forged.status_code == 403
    form.pop("csrfmiddlewaretoken")
    assert (await send(browser, form)).status_code == 403
