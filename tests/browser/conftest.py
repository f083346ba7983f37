"""A real Chromium for the tests of the page: the system's own, nothing is downloaded.

`page` fails its test when the browser has anything to complain about: an error on the console,
an exception, a breach of the Content-Security-Policy.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from lab.harness.hub import Hub
from tests.browser.stage import Stage

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = ["--disable-gpu", "--disable-background-networking", "--disable-component-update"]
QUIET += ["--disable-sync", "--disable-dev-shm-usage"]

expect.set_options(timeout=10_000)


def chromium_path() -> str | None:
    chosen = os.environ.get("AGENTCOM_CHROMIUM")
    return chosen or next((path for name in NAMES if (path := shutil.which(name))), None)


# Of the module, not of the session: Playwright keeps an event loop running, beside which no test
# that is itself a coroutine could run.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium_path()
    if path is None:
        pytest.skip(
            "No Chromium found: install Debian's package `chromium`, or set AGENTCOM_CHROMIUM."
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complains about; a test that provokes something takes it out of here."""
    return []


@pytest.fixture
def page(browser: Browser, complaints: list[str]) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (event) =>"
        " console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`))"
    )

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    page.on("console", listen)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == []


@pytest.fixture
def stage(page: Page) -> Stage:
    return Stage(page)


@pytest.fixture(scope="module")
def hub(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """After `browser`, so that no hub is started where there is nothing to look at it with."""
    with Hub(tmp_path_factory.mktemp("hub") / Path("data")) as hub:
        yield hub
