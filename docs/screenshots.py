"""The pictures of the README: a busy dashboard, dark and light. `make screenshots` runs this.

A hub of its own in a temporary folder, a simulated fleet at work, and a browser that looks at it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

from lab.harness.hub import Hub
from lab.harness.store import ROOT
from tests.browser.conftest import QUIET, chromium_path

IMAGES = Path(__file__).parent / "images"
SIZE = {"width": 1440, "height": 900}
# Until there is something to see in the charts of the last hour.
WORK_S = float(os.environ.get("SCREENSHOTS_AFTER_S", "900"))
FLEET = ["--agents", "24", "--rate", "10", "--failure-rate", "0.22", "--drop-rate", "0.002"]
FLEET += ["--seed", "7"]


def main() -> None:
    path = chromium_path()
    if path is None:
        sys.exit("No Chromium found: install it, or say where it is with AGENTCOM_CHROMIUM.")
    with tempfile.TemporaryDirectory() as folder, Hub(Path(folder)) as hub, at_work(hub):
        print(f"A fleet works at {hub.url} for {WORK_S:.0f} s …")
        time.sleep(WORK_S)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=QUIET)
            for scheme in ("dark", "light"):
                take(browser, hub, scheme)
            browser.close()


@contextmanager
def at_work(hub: Hub) -> Iterator[None]:
    simulate = [sys.executable, "manage.py", "simulate", "--url", hub.url, *FLEET]
    fleet = subprocess.Popen(  # noqa: S603 - our own command
        simulate, cwd=ROOT, env=hub.environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        yield
    finally:
        fleet.terminate()
        fleet.wait()


def take(browser: Browser, hub: Hub, scheme: Literal["dark", "light"]) -> None:
    page = browser.new_page(viewport=SIZE, color_scheme=scheme, reduced_motion="reduce")
    page.goto(f"{hub.url}/dashboard")
    page.wait_for_selector("html[data-connection=live]")
    let_something_happen(page)
    file = IMAGES / f"dashboard-{scheme}.png"
    page.screenshot(path=file)
    page.close()
    print(file.relative_to(ROOT))


def let_something_happen(page: Page) -> None:
    """Ten seconds, in which the feed of events fills."""
    page.wait_for_timeout(10_000)


if __name__ == "__main__":
    main()
