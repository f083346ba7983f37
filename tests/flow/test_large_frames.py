"""What the hub sends may be larger than what it takes: a thousand agents make such a snapshot."""

from __future__ import annotations

import json

from agentcom.servers.limits import MAX_FRAME
from tests.flow.conftest import Join, Submit, View

TASKS = 100
LONG = "𝄞" * 500  # four bytes each


async def test_a_snapshot_beyond_the_limit_of_what_is_received_arrives(
    join: Join, submit: Submit, view: View
) -> None:
    agent = await join()
    for _ in range(TASKS):
        await submit(agent.skill, description=LONG, max_retries=1)
        await agent.say("task_failed", await agent.assigned(), error=LONG)

    watcher = await view()
    snapshot = await watcher.snapshot()

    assert len(json.dumps(snapshot, ensure_ascii=False).encode()) > MAX_FRAME
    assert len(snapshot["dead_letter_tasks"]) == TASKS
