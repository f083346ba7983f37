"""The log as JSON: what each line has, and that a hub writes no other lines."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentcom.logs import JsonLines
from lab.harness.hub import SERVERS, Hub

pytestmark = pytest.mark.sqlite_only

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def logged(log: Callable[[logging.Logger], None], encoding: str = "utf-8") -> dict[str, Any]:
    """What a handler writes for one record, to a stream as standard error is."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding, errors="backslashreplace")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.Logger("some.part")
    logger.addHandler(handler)
    log(logger)
    stream.flush()
    [line] = written.getvalue().decode(encoding).splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_has_these_fields():
    found = logged(lambda logger: logger.warning("%d of %s", 3, "four"))
    assert TIME.fullmatch(found.pop("time"))
    assert found == {
        "level": "WARNING",
        "logger": "some.part",
        "message": "3 of four",
        "process": os.getpid(),
    }


def test_the_time_is_that_of_the_record():
    def log(logger: logging.Logger) -> None:
        record = logger.makeRecord(logger.name, logging.INFO, "", 0, "x", (), None)
        record.created = 1_769_860_800.1239
        logger.handle(record)

    found = logged(log)["time"]
    assert found == "2026-01-31T12:00:00.123Z"
    assert datetime.fromisoformat(found).timestamp() == pytest.approx(1_769_860_800.123)


def test_a_traceback_is_one_text():
    def log(logger: logging.Logger) -> None:
        try:
            raise ValueError("what is\nwrong")
        except ValueError:
            logger.exception("It failed")

    found = logged(log)
    assert found["message"] == "It failed"
    assert found["traceback"].startswith("Traceback (most recent call last):\n")
    assert found["traceback"].endswith("ValueError: what is\nwrong")


def test_where_it_was_logged_is_told_too():
    found = logged(lambda logger: logger.info("Here", stack_info=True))
    assert "test_logs.py" in found["traceback"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_any_text_is_json_whatever_the_stream_can_encode(encoding: str):
    text = 'quotes ", \\, two\nlines, é, 🙂, \x1b[31m, \0 and \udc80'
    assert logged(lambda logger: logger.info(text), encoding)["message"] == text


def test_secrets_are_masked():
    token = "act_8Qm3vZr1oYx5Kc7TgWbN2hJfLp9SdAe4UiM6kRtXqB0"

    def fail(logger: logging.Logger) -> None:
        try:
            raise ValueError(token)
        except ValueError:
            logger.exception("sent %s", token)

    assert token not in str(logged(fail))


@pytest.mark.parametrize("server", SERVERS)
async def test_a_hub_writes_nothing_else(tmp_path: Path, server: str):
    settings = {"AGENTCOM_LOG_FORMAT": "json", "AGENTCOM_LOG_LEVEL": "DEBUG"}
    with Hub(tmp_path, server=server, **settings) as hub:
        async with httpx.AsyncClient(base_url=hub.url) as client:
            await client.get("/dashboard")
        [web] = hub.webs
        web.terminate()
        lines = [line for line in web.log.splitlines() if line.startswith("{")]
        others = [line for line in web.log.splitlines() if not line.startswith("{")]
    records = [json.loads(line) for line in lines]
    assert all(
        {"time", "level", "logger", "message", "process"} <= found.keys() for found in records
    )
    loggers = {found["logger"] for found in records}
    assert "worker.tick" in loggers
    assert any(name.startswith(server) for name in loggers), loggers
    # what it says to who started it
    assert others[0].startswith("AgentCom is running on ")
    assert others[-1] == "Ctrl-C ends it."
    assert len(others) == 7, others
