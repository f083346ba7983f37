"""What tokens allow; every call against every kind is in tests/flow/test_roles.py."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks

from agentcom.addresses import client_address
from agentcom.rights import Caller, Grant, Right, TokenKind


def caller(kind: TokenKind = TokenKind.AGENT, **scopes: Any) -> Caller:
    return Caller("a-1", Grant(kind, **scopes), "hash", "hash")


@pytest.mark.parametrize(
    ("agent_id", "is_its"),
    [
        ("a-1", True),
        ("a-1#2", True),
        ("a-1#", False),
        ("a-1#x", False),
        ("a-1#2#3", False),
        ("a-10", False),
        ("a-2", False),
        ("", False),
        (None, False),
    ],
)
def test_an_agent_and_its_slots(agent_id: str | None, is_its: bool):
    assert caller().is_for(agent_id) is is_its
    assert caller().owns("somebody", agent_id) is is_its


def test_whoever_submitted_a_task_owns_it():
    assert caller(TokenKind.SUBMITTER).owns("a-1", "another")
    assert not caller(TokenKind.SUBMITTER).owns("a-1 ", "another")


def test_the_former_rights_of_agents(settings: Any):
    others = (Right.READ_ALL, Right.OPERATE, Right.LOOK)

    def allowed(kind: TokenKind) -> list[Right]:
        return [right for right in others if caller(kind).may(right)]

    assert allowed(TokenKind.AGENT) == []
    assert caller().submits_like_an_agent is True
    settings.AGENTCOM_AGENT_TOKENS = "all"
    assert allowed(TokenKind.AGENT) == [Right.READ_ALL, Right.OPERATE]  # they never could look
    assert caller().owns("somebody", None)
    assert caller().submits_like_an_agent is False
    assert allowed(TokenKind.SUBMITTER) == []


def test_each_start_warns_of_them(settings: Any):
    assert "agentcom.W008" not in [found.id for found in checks.run_checks(tags=["agentcom"])]
    settings.AGENTCOM_AGENT_TOKENS = "all"
    assert "agentcom.W008" in [found.id for found in checks.run_checks(tags=["agentcom"])]


def test_scopes():
    gpu = caller(TokenKind.SUBMITTER, capabilities=("cpu", "gpu"), lanes=(2, 3))
    assert gpu.refusal_to_submit(["gpu"], 2) is None
    assert gpu.refusal_to_submit(["gpu", "cpu"], 3) is None
    assert "cpu, gpu" in str(gpu.refusal_to_submit([], 2))
    assert "disk" in str(gpu.refusal_to_submit(["gpu", "disk"], 2))
    assert "lane 0" in str(gpu.refusal_to_submit(["gpu"], 0))
    assert caller().refusal_to_submit([], 0) is None


class TestAddresses:
    def scope(self, *forwarded: str, peer: str | None = "10.0.0.1") -> dict[str, Any]:
        headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
        return {"client": peer and (peer, 1), "headers": headers}

    def test_without_proxies_what_the_client_claims_does_not_count(self):
        assert client_address(self.scope("1.2.3.4")) == "10.0.0.1"
        assert client_address(self.scope(peer=None)) == ""

    @pytest.mark.parametrize(
        ("count", "forwarded", "address"),
        [
            (1, ["1.2.3.4"], "1.2.3.4"),
            (1, ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
            (1, ["6.6.6.6", "1.2.3.4"], "1.2.3.4"),
            (2, ["6.6.6.6, 1.2.3.4, 10.0.0.9"], "1.2.3.4"),
            (2, ["1.2.3.4"], "10.0.0.1"),
            (1, [], "10.0.0.1"),
            (1, ["a\tb"], "10.0.0.1"),
            (1, ["x" * 200], "x" * 64),
        ],
    )
    def test_behind_proxies(self, settings: Any, count: int, forwarded: list[str], address: str):
        settings.AGENTCOM_PROXY_COUNT = count
        assert client_address(self.scope(*forwarded)) == address
