from __future__ import annotations

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler

STYLES = "/static/admin/css/base.css"

# Any will do: what is tested answers before them, or nobody does.
pytestmark = [pytest.mark.sqlite_only, pytest.mark.urls("django.contrib.auth.urls")]


async def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    asked = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    http = ApplicationCommunicator(
        ASGIHandler(),
        {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(b"host", b"localhost"), *asked],
        },
    )
    await http.send_input({"type": "http.request"})
    start, body = await http.receive_output(5), await http.receive_output(5)
    await http.wait(5)
    assert not body.get("more_body")
    told = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return start["status"], told, body["body"]


async def test_serves_a_file_in_one_piece_with_nothing_collected():
    status, headers, body = await ask(STYLES)

    assert status == 200
    assert headers["content-type"].startswith("text/css")
    assert int(headers["content-length"]) == len(body) > 0


async def test_answers_head_without_a_body():
    status, headers, body = await ask(STYLES, "HEAD")

    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0


async def test_answers_a_part():
    status, headers, body = await ask(STYLES, range="bytes=0-9")

    assert (status, len(body)) == (206, 10)
    assert headers["content-length"] == "10"


async def test_does_not_send_again_what_the_browser_has():
    _, headers, _ = await ask(STYLES)

    status, _, body = await ask(STYLES, if_none_match=headers["etag"])

    assert (status, body) == (304, b"")


@pytest.mark.parametrize("path", ["/static/../manage.py", "/static/nothing.css"])
async def test_serves_nothing_else(path):
    status, _, _ = await ask(path)

    assert status == 404
