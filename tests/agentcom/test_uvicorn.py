"""What the hub needs of uvicorn is checked before it serves, and dangerous options are refused."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from agentcom.servers.uvicorn import CannotServeError, Uvicorn, _refuse_options, fault


def server(**options: Any) -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config("agentcom.asgi:application", log_config=None, **options))


def test_all_is_there() -> None:
    loaded = server()
    loaded.config.http_protocol_class = asyncio.Protocol
    assert fault(loaded) is None


def test_what_is_gone_is_named() -> None:
    gone = SimpleNamespace(config=server().config, server_state=SimpleNamespace())
    missing = fault(gone)
    assert missing is not None
    assert "server.should_exit" in missing
    assert "server_state.connections" in missing


@pytest.mark.parametrize(
    ("options", "named"),
    [({"limit_max_requests": 9}, "--limit-max-requests"), ({"root_path": "/hub"}, "--root-path")],
)
def test_an_option_that_changes_the_process_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(CannotServeError, match=named):
        _refuse_options(server(**options).config)


def test_another_server_is_refused() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None: ...

    async def is_known(authorization: str, cookie: str) -> bool:
        return True

    with pytest.raises(CannotServeError, match="under Daphne or uvicorn"):
        Uvicorn(application, is_known)
