"""Token buckets, by a clock that the test sets."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcom import limits
from agentcom.limits import MAX_BUCKETS, Bucket, Buckets, Crowd


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_goes_through_and_then_the_rate(clock: Clock):
    bucket = Bucket(10, 5, clock)
    for _ in range(5):
        assert bucket.wait_s() == 0
        bucket.take()
    bucket.take()
    assert bucket.wait_s() == pytest.approx(0.1)
    clock.now += 0.1
    assert bucket.wait_s() == pytest.approx(0)
    clock.now += 100
    assert bucket.is_full


def test_one_that_is_overdrawn_is_out_of_use_for_longer(clock: Clock):
    bucket = Bucket(20, 200, clock)
    bucket.take(1000)
    assert bucket.wait_s() == pytest.approx(40)
    clock.now += 40
    assert bucket.wait_s() == pytest.approx(0)


def test_a_rate_of_0_is_no_limit(clock: Clock):
    bucket = Bucket(0, 1, clock)
    bucket.take(1_000_000)
    assert bucket.wait_s() == 0


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), max_size=50))
def test_never_more_than_the_burst_the_rate_and_one_request(asked: list[tuple[float, int]]):
    clock = Clock()
    bucket, began, admitted = Bucket(7, 20, clock), clock.now, 0
    largest = max((amount for _, amount in asked), default=0)
    for pause, amount in asked:
        clock.now += pause
        if not bucket.wait_s():
            bucket.take(amount)
            admitted += amount
        assert admitted <= 20 + 7 * (clock.now - began) + largest + 1e-6


def test_clients_do_not_share_a_bucket():
    buckets = Buckets("it does too much")
    assert buckets.admit("a", 6, 1, 5) == 0
    assert 0 < buckets.admit("a", 1, 1, 5) <= 1
    assert buckets.admit("b", 1, 1, 5) == 0


def test_memory_is_bounded_and_who_is_overdrawn_stays_so():
    buckets = Buckets("it does too much")
    buckets.admit("flood", 1000, 1, 5)
    for number in range(MAX_BUCKETS + 10):
        buckets.admit(str(number), 0, 1, 5)  # they stay full
    assert len(buckets._buckets) < MAX_BUCKETS
    assert buckets.admit("flood", 1, 1, 5) > 900


def test_a_limit_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limits, "_noted", {})
    buckets = Buckets("it does too much", shown=3)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            buckets.admit("abcdef", 10, 1, 5)
    assert [record.getMessage() for record in caplog.records] == [
        "abc is slowed down: it does too much"
    ]


def test_a_crowd_is_counted_by_address():
    crowd = Crowd("too many")
    assert [crowd.enter("a"), crowd.enter("a"), crowd.enter("b")] == [1, 2, 1]
    for address in ("a", "a", "b"):
        crowd.leave(address)
    assert not crowd._count
