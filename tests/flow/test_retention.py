"""What clients see of a task that was dropped long after its end."""

from __future__ import annotations

import httpx
import pytest

from agentcom_client import HubError
from agentcom_client.patches import fold
from lab.harness.hub import Hub
from tests.flow.conftest import Join, Submit, View

# The worker of the hub itself would wait until its clock has been steady for ten minutes.
PRUNE = """
from datetime import timedelta
from agentcom.database import now
from agentcom.writer import writer
from worker.pruning import PruneTasks
print(writer.commit([PruneTasks(now() + timedelta(seconds=1))]))
writer.stop()
"""


async def test_a_dropped_task_is_gone_everywhere(
    hub: Hub, api: httpx.AsyncClient, join: Join, submit: Submit, view: View
):
    agent = await join()
    gone = await submit(agent.skill, "To be dropped")
    done = await agent.accepted()
    await agent.say("task_complete", done, result={"pages": 12})
    waiting = await submit("nobody has this")
    viewer = await view()
    viewer.subscribe()
    state = await viewer.snapshot()
    assert state["queue"]["by_status"]["completed"] >= 1
    before = (await api.get("/api/tasks/stats")).json()

    dropped = int(hub.manage("shell", "-v", "0", "-c", PRUNE).strip("[] \n"))

    assert dropped >= 1
    stats = (await api.get("/api/tasks/stats")).json()
    assert stats["by_status"] == {**before["by_status"], "completed": 0}
    assert before["by_status"]["completed"] == dropped
    for path in (f"/api/tasks/{gone}", f"/api/dashboard/tasks/{gone}"):
        answer = await api.get(path)
        assert (answer.status_code, answer.json()["error"]) == (404, "task_not_found")
    assert (await api.post(f"/api/tasks/{gone}/retry")).status_code == 404
    assert (await api.get(f"/api/tasks/{waiting}")).json()["status"] == "queued"
    listed = (await api.get("/api/tasks", params={"limit": 500})).json()["tasks"]
    assert gone not in {task["id"] for task in listed}

    with pytest.raises(HubError, match="task_complete_failed: not_found"):
        await agent.say("task_complete", done, result={"pages": 12})

    while state["queue"]["by_status"]["completed"]:
        state = fold(state, await viewer.frame("patch"))
    assert state["queue"]["by_status"] == stats["by_status"]
