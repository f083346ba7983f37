"""The page behind proxies: one that lets no socket through, and some that put a path before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, expect

from lab.harness.hub import Hub
from tests.browser.proxy import Proxy, Rewrite, without_port, without_prefix, without_upgrade
from tests.browser.worker import Worker


def test_where_no_socket_gets_through_the_page_polls_and_says_so(
    page: Page, hub: Hub, complaints: list[str]
) -> None:
    """And goes back to the socket once it does."""
    with Worker(hub, "w-1") as worker, Proxy.before(hub.port, without_upgrade) as proxy:
        page.goto(f"{proxy.url}/dashboard")
        page.wait_for_selector("html[data-connection=polling]")
        expect(page.get_by_test_id("connection")).to_contain_text("a proxy blocks live updates")

        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

        expect(page.get_by_test_id("lane-normal")).to_have_text("0")
        worker.submit("waits", needed_capabilities=["nobody has it"])
        expect(page.get_by_test_id("lane-normal")).to_have_text("1")

        proxy.rewrite = bytes
        page.get_by_role("button", name="Try now").click()
        page.wait_for_selector("html[data-connection=live]")
    refused = [text for text in complaints if "Unexpected response code: 426" in text]
    assert len(refused) >= 2
    assert complaints == refused
    complaints.clear()


def test_where_the_proxy_drops_the_port_the_page_polls_and_the_log_says_why(
    page: Page, hub: Hub, complaints: list[str]
) -> None:
    """Such a proxy was enough before origins counted with their ports."""
    with Proxy.before(hub.port, without_port) as proxy:
        page.goto(f"{proxy.url}/dashboard")
        page.wait_for_selector("html[data-connection=polling]")
        expect(page.get_by_test_id("connection")).to_contain_text("a proxy blocks live updates")
        assert f"Refused a socket of a page of '{proxy.url}'" in hub.log
        assert "$http_host" in hub.log
        proxy.rewrite = bytes
        page.get_by_role("button", name="Try now").click()
        page.wait_for_selector("html[data-connection=live]")
    assert [text for text in complaints if "Unexpected response code: 403" not in text] == []
    complaints.clear()


def test_a_proxy_that_drops_the_port_is_fine_if_its_address_is_trusted(
    page: Page, tmp_path: Path
) -> None:
    with ExitStack() as open_:
        proxy = open_.enter_context(Proxy.before(0, without_port))
        hub = open_.enter_context(Hub(tmp_path, AGENTCOM_TRUSTED_ORIGINS=proxy.url))
        proxy.port = hub.port
        page.goto(f"{proxy.url}/dashboard")
        page.wait_for_selector("html[data-connection=live]")
        page.goto("about:blank")


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory: pytest.TempPathFactory, browser: object) -> Iterator[Hub]:
    data = tmp_path_factory.mktemp("prefixed") / Path("data")
    with Hub(data, AGENTCOM_PATH_PREFIX="/agentcom") as hub:
        yield hub


@pytest.mark.parametrize("rewrite", [without_prefix, bytes], ids=["stripped", "passed on"])
def test_under_a_prefix_all_stays_under_it(page: Page, prefixed: Hub, rewrite: Rewrite) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(path_of(request)))
    page.on("websocket", lambda socket: asked.append("/" + socket.url.split("/", 3)[3]))
    with Proxy.before(prefixed.port, rewrite) as proxy, Worker(prefixed, "w-1") as worker:
        page.goto(f"{proxy.url}/agentcom/")
        page.wait_for_selector("html[data-connection=live]")
        assert page.url == f"{proxy.url}/agentcom/dashboard"
        task = worker.submit("under a prefix", max_retries=0)
        worker.fail(worker.take(), "no use")
        page.goto(f"{proxy.url}/agentcom/dashboard?task={task}")
        expect(page.locator("#drawer")).to_contain_text("under a prefix")
        page.locator("#drawer-retry").click()
        worker.complete(worker.take())
        scope = page.evaluate(
            "navigator.serviceWorker.register(document.getElementById('notify').dataset.worker,"
            " { scope: document.documentElement.dataset.base + '/dashboard' })"
            ".then(({ scope }) => scope)"
        )
        assert scope == f"{proxy.url}/agentcom/dashboard"
        page.goto(f"{proxy.url}/agentcom/api/docs")
        page.wait_for_selector("#docs[data-state=shown]")
        expect(page.locator("#docs")).to_contain_text("/agentcom")
        login = page.request.get(f"{proxy.url}/agentcom/admin")
        assert login.url.startswith(f"{proxy.url}/agentcom/admin/login/")
        assert {cookie["path"] for cookie in page.context.cookies()} == {"/agentcom"}
    outside = {path for path in asked if not path.startswith("/agentcom/")}
    assert outside == set()
    for kind in ("/static/", "/api/dashboard/", "/ws/dashboard", "/dashboard/icon.svg"):
        assert any(path.startswith(f"/agentcom{kind}") for path in asked), kind


def path_of(request: Request) -> str:
    return "/" + request.url.split("/", 3)[3]
