"""A hub that has nearly as many files open as it may says so."""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest

from lab.harness.hub import Hub
from lab.kit.viewer import Viewer
from tests.flow.conftest import View

SCARCE = "nearly out of files to open"


@pytest.mark.bound_s(90)
async def test_the_light_says_when_files_are_scarce_and_when_they_are_not(
    hub: Hub, view: View
) -> None:
    watcher = await view()
    await watcher.snapshot()
    pid = hub.webs[0].pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    few = hub.webs[0].open_files + 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, before[1]))
    try:
        await watcher.until(last_light(lambda light: SCARCE in light))
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert f"of {few} files are open" in hub.log
    await watcher.until(last_light(lambda light: SCARCE not in light))


def last_light(is_right: Callable[[str], bool]) -> Callable[[Viewer], bool]:
    def seen(viewer: Viewer) -> bool:
        lights = [e["conditions"] for e in viewer.events if e["type"] == "health_changed"]
        return bool(lights) and is_right(" ".join(lights[-1]))

    return seen
