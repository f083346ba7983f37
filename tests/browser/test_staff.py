"""Staff mode: a login that has ended is told in words, and the way back leads to the same place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from lab.harness.hub import Hub

ADD_USER = """
from django.contrib.auth.models import Permission, User
operator = User.objects.create_user("operator", password="correct horse", is_staff=True)
may = Permission.objects.filter(codename__in=["view_task", "view_agent"])
operator.user_permissions.set(may)
"""
END_SESSIONS = """
from django.contrib.sessions.models import Session
Session.objects.all().delete()
"""
REFUSED = re.compile("40[134]|WebSocket connection to|ERR_CONNECTION_REFUSED")
PLACE = "/dashboard?task=task-00000000000000aa"


@pytest.fixture(scope="module")
def hub(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    data_dir = tmp_path_factory.mktemp("staff") / Path("data")
    with Hub(data_dir, AGENTCOM_DASHBOARD_ACCESS="staff") as hub:
        hub.manage("shell", "-v", "0", "-c", ADD_USER)
        yield hub


@pytest.fixture
def watching(page: Page, hub: Hub, complaints: list[str]) -> Iterator[Page]:
    page.goto(f"{hub.url}{PLACE}")
    log_in(page)
    page.wait_for_selector("html[data-connection=live]")
    assert page.url == f"{hub.url}{PLACE}"
    yield page
    # The browser itself writes down what was refused.
    complaints[:] = [text for text in complaints if not REFUSED.search(text)]


def log_in(page: Page) -> None:
    page.fill("#id_username", "operator")
    page.fill("#id_password", "correct horse")
    page.press("#id_password", "Enter")


def test_a_session_that_ends_is_told_and_leads_back(watching: Page, hub: Hub) -> None:
    hub.manage("shell", "-v", "0", "-c", END_SESSIONS)
    login = watching.get_by_test_id("login")
    expect(login).to_contain_text("Your login has ended", timeout=20_000)
    expect(watching.locator("html")).to_have_attribute("data-connection", "offline")
    login.get_by_role("link", name="Log in again").click()
    log_in(watching)
    watching.wait_for_selector("html[data-connection=live]")
    assert watching.url == f"{hub.url}{PLACE}"


def test_a_refused_handshake_is_not_tried_for_ever(watching: Page, hub: Hub) -> None:
    """The hub was away while the login ended: nobody could tell the page."""
    hub.terminate()
    watching.wait_for_selector("html[data-connection=reconnecting]")
    hub.manage("shell", "-v", "0", "-c", END_SESSIONS)
    hub.start()
    expect(watching.get_by_test_id("login")).to_be_visible(timeout=30_000)
    expect(watching.get_by_test_id("connection")).to_contain_text("your login has ended")
