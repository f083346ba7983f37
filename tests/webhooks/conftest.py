from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.webhooks.receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def on_loopback(settings) -> None:
    """Where the receivers of the tests are."""
    settings.AGENTCOM_WEBHOOK_ALLOW_PRIVATE = True
