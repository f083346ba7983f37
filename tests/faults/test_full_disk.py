"""A disk that is full: nothing is taken on that cannot be kept, and the rest goes on."""

from __future__ import annotations

import resource
from pathlib import Path

import httpx
import pytest

from lab.harness.hub import Hub
from lab.kit.fleet import Fleet, running
from lab.kit.submitter import Submitter
from lab.kit.viewer import Viewer
from tests.faults.conftest import (
    check,
    codes,
    finish,
    until_answer,
    until_more,
)

pytestmark = pytest.mark.sqlite_only

NO_ROOM = 64 * 1024  # bytes a file may have; that of the database is larger from the start


def leave_room(hub: Hub, size: int) -> None:
    """No file of the hub can grow beyond `size`: writing fails as on a full disk."""
    _, hard = resource.prlimit(hub.webs[0].pid, resource.RLIMIT_FSIZE)
    resource.prlimit(hub.webs[0].pid, resource.RLIMIT_FSIZE, (size, hard))


async def test_a_full_disk_loses_nothing_and_is_told(tmp_path: Path) -> None:
    with Hub(tmp_path, AGENTCOM_COMMIT_TIMEOUT_S="1") as hub:
        tokens = hub.tokens(["a-1", "a-2", "submitter"])
        submitter = Submitter(hub.url, tokens.pop("submitter"))
        fleet = Fleet(hub.ws_url, tokens)
        async with running(fleet, submitter), await Viewer.open(hub.port) as viewer:
            await until_more(fleet.completed, 10)

            leave_room(hub, NO_ROOM)
            await until_more(submitter.refused, 2)
            refusal = submitter.refused[-1]
            assert "disk" in refusal.json()["detail"]
            assert int(refusal.headers["Retry-After"]) > 0
            health = await until_answer(f"{hub.url}/health", lambda a: a.status_code == 503)
            assert "disk" in health.json()["detail"]
            ready = await until_answer(f"{hub.url}/health/ready", lambda a: a.status_code == 503)
            assert ready.json() == health.json()
            async with httpx.AsyncClient(base_url=hub.url) as http:
                assert (await http.get("/api/dashboard/state")).status_code == 200
            viewer.subscribe()
            await viewer.until(lambda _: "worker_silent" in codes(viewer))

            leave_room(hub, resource.RLIM_INFINITY)
            await until_more(fleet.completed, 10)
            await until_answer(f"{hub.url}/health", lambda a: a.status_code == 200)
            await finish(fleet, submitter)
        check(hub, fleet, submitter)
        assert set(fleet.identified.values()) == {1}  # no socket was lost
