"""Every page of the hub under its policy: the browser reports whatever it forbids.

`page` fails a test in which it did (see conftest.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Dialog, Page, Route, expect

from agentcom.doors import PAGE_POLICY
from lab.harness.hub import Hub
from tests.browser.worker import Worker

ADD_USERS = """
from django.contrib.auth.models import Group, User
User.objects.create_superuser("operator", password="correct horse")
User.objects.create_user("somebody", password="correct horse")
Group.objects.create(name="watchers")
"""
REFUSED = re.compile("40[0-9] ")  # the browser itself writes down an answer that is none
OTHER = "http://127.0.0.1:1"  # nobody's, so a test answers there
A_LIST = 2  # links of one kind that are followed: rows of a list look alike


@pytest.fixture(scope="module")
def hub(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    data_dir = tmp_path_factory.mktemp("policy") / Path("data")
    with Hub(data_dir, AGENTCOM_DASHBOARD_ACCESS="staff", AGENTCOM_WORKER_TICK_S="0.2") as hub:
        hub.manage("shell", "-v", "0", "-c", ADD_USERS)
        with Worker(hub, "agent-1", capabilities=["look"]) as worker:
            for number in range(3):
                worker.submit(f"Look at <b>{number}</b>", max_retries=1, metadata={"n": number})
            worker.complete(worker.take(), tokens_used=3)
            worker.fail(worker.take(), "It didn't work")
            worker.submit("Wait", needed_capabilities=["nobody has this"])
            place_hold(hub, worker.token)
        yield hub


def place_hold(hub: Hub, token: str) -> None:
    import httpx

    hold = {"scope": "capability", "subject": "look", "reason": "it's <late>"}
    headers = {"Authorization": f"Bearer {token}"}
    httpx.post(f"{hub.url}/api/holds", json=hold, headers=headers).raise_for_status()


@pytest.fixture
def staff(page: Page, hub: Hub) -> Page:
    page.goto(f"{hub.url}/admin/")
    page.fill("#id_username", "operator")
    page.fill("#id_password", "correct horse")
    page.press("#id_password", "Enter")
    page.wait_for_selector("#user-tools")
    return page


def follow(page: Page, url: str) -> list[str]:
    """Open a page, and return the links on it that stay in the admin."""
    answer = page.goto(url)
    assert answer is not None
    assert answer.status == 200, url
    assert answer.headers["content-security-policy"] == PAGE_POLICY, url
    links: list[str] = page.evaluate("[...document.links].map((link) => link.href)")
    return [link.partition("#")[0] for link in links if "/admin/" in link]


def kind_of(url: str) -> str:
    """Rows of a list look alike, and so do its pages. Several filters at once show nothing new."""
    place = urlsplit(url)
    names = {part.partition("=")[0] for part in place.query.split("&")} - {"_changelist_filters"}
    row = re.sub(r"/admin/(\w+/\w+)/[^/]+/(?!$)", r"/admin/\1/ROW/", place.path)
    return row + " ".join(names if len(names) == 1 else ())


def test_no_page_of_the_admin_breaks_the_policy(staff: Page, hub: Hub) -> None:
    """Follows all links from the start page on."""
    seen: dict[str, list[str]] = {}
    waiting = [f"{hub.url}/admin/"]
    opened = 0
    while waiting:
        url = waiting.pop()
        alike = seen.setdefault(kind_of(url), [])
        if url in alike or len(alike) >= A_LIST:
            continue
        alike.append(url)
        opened += 1
        waiting += follow(staff, url)
    paths = {urlsplit(url).path for urls in seen.values() for url in urls}
    for rows in ("tasks/task", "agents/agent", "agents/agenttoken", "agents/hold", "auth/user"):
        assert f"/admin/{rows}/" in paths, rows
        assert any(
            path.startswith(f"/admin/{rows}/") and path.endswith("/change/") for path in paths
        )
    for page in ("/admin/auth/user/add/", "/admin/password_change/"):
        assert page in paths
    assert any(path.endswith("/delete/") for path in paths)
    assert any(path.endswith("/history/") for path in paths)
    assert opened > 40


def test_widgets_work_under_the_policy(staff: Page, hub: Hub) -> None:
    """Dates, times, the two lists of permissions, the filter beside a list, the colour scheme."""
    staff.goto(f"{hub.url}/admin/auth/user/?username=x")
    staff.goto(f"{hub.url}/admin/auth/user/")
    staff.get_by_role("link", name="somebody").click()
    date = staff.locator("#id_date_joined_0")
    before = date.input_value()
    date.fill("2001-02-03")
    staff.locator(".field-date_joined .datetimeshortcuts a", has_text="Today").click()
    assert date.input_value()[:2] == before[:2]
    staff.locator(".field-date_joined .date-icon").click()
    staff.locator("#calendarbox0 td a, #calendarbox1 td a").locator("visible=true").first.click()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", date.input_value())
    staff.locator(".field-date_joined .clock-icon").click()
    staff.locator(".clockbox a").locator("visible=true").first.click()
    chosen = staff.locator("#id_user_permissions_to option")
    staff.locator("#id_user_permissions_from option").first.dblclick()
    expect(chosen).to_have_count(1)
    staff.locator("#id_user_permissions_input").fill("task")
    staff.locator(".theme-toggle").locator("visible=true").first.click()
    staff.locator("#toggle-nav-sidebar").click()
    with staff.expect_popup() as opened:
        staff.locator("#add_id_groups").click()
    popup = opened.value
    popup.fill("#id_name", "added")
    popup.locator("input[name=_save]").click()
    expect(
        staff.locator("#id_groups_to option, #id_groups_from option", has_text="added")
    ).to_have_count(1)
    staff.locator("input[name=_save]").click()
    expect(staff.locator(".messagelist .success")).to_contain_text("somebody")
    staff.locator("#searchbar").fill("some")
    staff.locator("#changelist-search input[type=submit]").click()
    staff.locator("#changelist-filter a").locator("visible=true").first.click()


def test_a_new_user_and_a_new_password(staff: Page, hub: Hub) -> None:
    staff.goto(f"{hub.url}/admin/auth/user/add/")
    staff.fill("#id_username", "newcomer")
    staff.fill("#id_password1", "correct horse battery")
    staff.fill("#id_password2", "correct horse batter")
    staff.locator("input[name=_continue]").click()
    expect(staff.locator(".errorlist").first).to_be_visible()
    staff.fill("#id_password1", "correct horse battery")
    staff.fill("#id_password2", "correct horse battery")
    staff.locator("input[name=_continue]").click()
    expect(staff.locator(".messagelist .success")).to_contain_text("newcomer")
    staff.goto(f"{hub.url}/admin/password_change/")
    staff.fill("#id_old_password", "wrong")
    staff.fill("#id_new_password1", "x")
    staff.fill("#id_new_password2", "x")
    staff.locator("input[type=submit]").click()
    expect(staff.locator(".errorlist").first).to_be_visible()


def test_an_action_on_a_list(staff: Page, hub: Hub) -> None:
    staff.goto(f"{hub.url}/admin/auth/user/")
    staff.locator("tr", has_text="somebody").locator("input.action-select").check()
    staff.locator("select[name=action]").select_option("delete_selected")
    staff.get_by_role("button", name="Go").click()
    expect(staff.locator("#content")).to_contain_text("Are you sure")
    staff.get_by_role("link", name="No, take me back").click()
    staff.goto(f"{hub.url}/admin/tasks/task/?status__exact=dead_letter")
    staff.locator("#action-toggle").check()
    expect(staff.locator(".action-counter")).to_contain_text("1 of 1")
    staff.locator("select[name=action]").select_option("retry")
    staff.get_by_role("button", name="Go").click()
    expect(staff.locator(".messagelist")).to_contain_text("put back into the queue")


def test_an_irreversible_action_asks_first(staff: Page, hub: Hub) -> None:
    """The question was in the page itself once, where the policy would not let it run."""
    asked: list[str] = []
    hub.token("to-be-revoked")
    staff.goto(f"{hub.url}/admin/agents/agenttoken/?q=to-be-revoked")
    staff.locator("#result_list th a").click()

    def refuse(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    staff.once("dialog", refuse)
    staff.get_by_role("button", name="Revoke").click()
    [question] = asked
    assert question.startswith("Revoke: ")
    expect(staff.locator(".field-state")).to_contain_text("valid")
    staff.once("dialog", lambda dialog: dialog.accept())
    staff.get_by_role("button", name="Revoke").click()
    expect(staff.locator(".messagelist")).to_contain_text("revoked")


def test_the_pages_of_the_hub(staff: Page, hub: Hub) -> None:
    for path in ("dashboard", "dashboard/agents/agent-1", "dashboard/submit", "api/docs"):
        answer = staff.goto(f"{hub.url}/{path}")
        assert answer is not None
        assert answer.headers["content-security-policy"] == PAGE_POLICY
    staff.goto(f"{hub.url}/dashboard")
    staff.wait_for_selector("html[data-connection=live]")


def test_what_is_refused_has_a_page_too(staff: Page, hub: Hub, complaints: list[str]) -> None:
    staff.goto(f"{hub.url}/admin/nowhere/")
    staff.goto(f"{hub.url}/nowhere")
    staff.goto(f"{hub.url}/dashboard/submit")
    staff.fill("[name=description]", "With an old form")
    staff.evaluate("document.querySelector('[name=csrfmiddlewaretoken]').value = 'x'.repeat(64)")
    staff.get_by_role("button", name="Submit").last.click()
    expect(staff.get_by_test_id("csrf-failed")).to_contain_text("did not accept this form")
    assert not [text for text in complaints if text.startswith("policy")]
    complaints[:] = [text for text in complaints if not REFUSED.search(text)]


def test_logging_in_and_out(page: Page, hub: Hub) -> None:
    page.goto(f"{hub.url}/admin/login/")
    page.fill("#id_username", "operator")
    page.fill("#id_password", "wrong")
    page.press("#id_password", "Enter")
    expect(page.locator(".errornote")).to_be_visible()
    page.fill("#id_password", "correct horse")
    page.press("#id_password", "Enter")
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("#content")).to_contain_text("Thanks for spending")


def answering(body: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(content_type="text/html", body=body)


def test_no_page_of_others_shows_it_in_a_frame(
    staff: Page, hub: Hub, complaints: list[str]
) -> None:
    """Clicks there could be led to buttons of the hub."""
    paths = ("dashboard", "admin/", "api/docs", "api/tasks", "static/dashboard/style.css")
    own = [f"{hub.url}/{path}" for path in paths]
    for address in (*own, f"{OTHER}/inside"):
        frame = f"<iframe src='{address}'></iframe>"
        staff.unroute(f"{OTHER}/**")
        staff.route(f"{OTHER}/inside", answering("shown"))
        staff.route(f"{OTHER}/around", answering(frame))
        staff.goto(f"{OTHER}/around")
        [inside] = staff.frames[1:]
        shown = "chrome-error" not in inside.evaluate("location.href")
        assert shown is (address not in own), address
    complaints.clear()


def test_a_page_on_another_port_reaches_nothing(
    staff: Page, hub: Hub, complaints: list[str]
) -> None:
    """The browser sends it the hub's cookies: ports do not keep those apart."""
    staff.route(f"{OTHER}/**", answering("<title>other</title>"))
    staff.goto(f"{OTHER}/page")
    sockets = staff.evaluate(
        """async (hub) => {
          const opens = (path) => new Promise((done) => {
            const socket = new WebSocket(`ws://${hub}${path}`);
            socket.onopen = () => done(true);
            socket.onclose = () => done(false);
          });
          return Promise.all(["/ws", "/ws/tasks", "/ws/dashboard"].map(opens));
        }""",
        f"127.0.0.1:{hub.port}",
    )
    assert sockets == [False, False, False]
    read = staff.evaluate(
        """async (hub) => {
          const tries = ["/api/dashboard/state", "/dashboard", "/dashboard/submit"];
          const found = [];
          for (const path of tries)
            for (const mode of ["cors", "no-cors"])
              found.push(await fetch(`http://${hub}${path}`, { mode, credentials: "include" })
                .then((answer) => answer.text(), () => ""));
          return found.join("");
        }""",
        f"127.0.0.1:{hub.port}",
    )
    assert read == ""
    complaints.clear()  # the browser writes down all of this
