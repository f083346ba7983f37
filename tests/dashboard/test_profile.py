"""What an agent's page is made of, and how much is read for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pytest_django.fixtures import DjangoAssertNumQueries

from agentcom.database import millis
from agentcom.models import Event
from dashboard import profile
from fleet.models import Agent
from tasks.models import Completion

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def known(agent_id: str = "reviewer-1", **fields: Any) -> Agent:
    return Agent.objects.create(agent_id=agent_id, **fields)


def completed(durations: range, agent_id: str = "reviewer-1") -> None:
    Completion.objects.bulk_create(
        Completion(
            task_id=f"task-{agent_id}-{ms}",
            agent_id=agent_id,
            description="Review it",
            duration_ms=ms,
            completed_at=NOON,
        )
        for ms in durations
    )


def happened(*kinds: str, agent_id: str = "reviewer-1", **data: Any) -> None:
    Event.objects.bulk_create(
        Event(kind=kind, agent_id=agent_id, at=NOON + timedelta(seconds=n), data=data)
        for n, kind in enumerate(kinds)
    )


def read(agent_id: str = "reviewer-1") -> dict[str, Any]:
    found = profile.profile_of(agent_id)
    assert found is not None
    return found


def test_an_agent_that_the_hub_does_not_know() -> None:
    assert profile.profile_of("nobody") is None


def test_durations_are_of_the_last_completions_only() -> None:
    known()
    completed(range(90_000, 90_010))
    completed(range(1, 201))
    completed(range(500_000, 500_010), "another")
    found = read()
    assert found["durations"] == {"count": 200, "median": 100, "p95": 190, "longest": 200}
    assert [row["duration_ms"] for row in found["completions"]] == list(range(200, 150, -1))


def test_an_agent_without_a_past() -> None:
    known(fsm_state="idle")
    found = read()
    assert found["durations"] == {"count": 0, "median": None, "p95": None, "longest": None}
    assert found["this_hour"] == {"completed": 0, "failed": 0}
    assert (found["failures"], found["connections"], found["searched_since"]) == ([], [], None)


def test_the_journal_is_searched_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    known()
    monkeypatch.setattr(profile, "SEARCHED", 3)
    happened("task_failed", "task_progress", "task_failed", "task_progress", error="Boom")
    found = read()
    assert [row["why"] for row in found["failures"]] == ["Boom"]
    assert found["searched_since"] == millis(NOON + timedelta(seconds=1))


def test_words_for_how_it_came_and_went() -> None:
    known()
    happened("agent_joined", "agent_left", signed_off=True)
    happened("agent_left", signed_off=False)
    told = [row["what"] for row in read()["connections"]]
    assert told == ["Connection lost", "Signed off", "Connected"]


def test_as_many_queries_however_much_it_did(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    known(current_task_id="task-00000000000000aa")
    completed(range(1, 300))
    happened(*["task_failed"] * 100, error="Boom")
    with django_assert_max_num_queries(10):
        read()


@pytest.mark.parametrize(
    ("fields", "meaning"),
    [
        ({"signed_off": True}, "It signed off"),
        ({"dropped_by_hub": True}, "Its connection ended with the hub"),
        ({}, "Its connection was lost"),
        ({"fsm_state": "idle"}, "It is free"),
        ({"fsm_state": "unresponsive"}, "It did not accept its last tasks"),
        ({"fsm_state": "working", "recovering_since": NOON}, "It reconnected"),
    ],
)
def test_each_state_has_a_meaning(fields: dict[str, Any], meaning: str) -> None:
    known(**fields)
    assert read()["state"]["meaning"].startswith(meaning)
