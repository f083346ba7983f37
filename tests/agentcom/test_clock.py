from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from agentcom.clock import Clock

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def test_it_goes_on_from_what_the_database_said(monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    assert abs(clock.now() - timezone.now()) < timedelta(minutes=1)
    monkeypatch.setattr("agentcom.clock.steady", lambda: 107.0)
    clock.set(NOON, at=100.0)
    monkeypatch.setattr("agentcom.clock.timezone.now", lambda: NOON - timedelta(days=3))  # was set
    assert clock.now() == NOON + timedelta(seconds=7)
