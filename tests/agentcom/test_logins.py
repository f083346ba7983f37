"""How failed logins are counted; what a hub does with it: tests/flow/test_logins.py."""

from __future__ import annotations

import threading
import time

from agentcom.logins import Failures, Turns, _network


class TestFailures:
    def test_some_at_once_and_then_one_at_a_time(self):
        failures = Failures(tries=5, per_s=30)
        for _ in range(5):
            assert failures.wait_s("eve", 100) == 0
            failures.add("eve", 100)
        assert failures.wait_s("eve", 100) == 30
        assert failures.wait_s("eve", 129) == 1
        assert failures.wait_s("eve", 130) == 0
        failures.add("eve", 130)
        assert failures.wait_s("eve", 130) == 30
        assert failures.wait_s("bob", 130) == 0

    def test_the_next_try_is_never_far(self):
        failures = Failures(tries=5, per_s=30)
        for _ in range(50):
            failures.add("eve", 100)
        assert failures.wait_s("eve", 100) == 30

    def test_all_tries_come_back(self):
        failures = Failures(tries=2, per_s=10)
        failures.add("eve", 0)
        failures.add("eve", 0)
        assert failures.wait_s("eve", 0) == 10
        failures.add("eve", 1000)
        assert failures.wait_s("eve", 1000) == 0

    def test_memory_is_bounded_whatever_is_tried(self):
        failures = Failures(tries=1, per_s=30, kept=100)
        for number in range(1_000):
            failures.add(f"name {number}", 0)
        assert len(failures) == 100
        assert failures.wait_s("name 899", 0) == 0
        assert failures.wait_s("name 900", 0) == 30


def test_one_at_a_time_and_few_wait():
    turns = Turns(room=2)
    waits = threading.Event()
    got: list[bool] = []

    def wait() -> None:
        waits.set()
        with turns.taken() as is_mine:
            got.append(is_mine)

    with turns.taken() as first:
        assert first
        waiting = threading.Thread(target=wait)
        waiting.start()
        waits.wait()
        while turns._room._value:  # until it has its place
            time.sleep(0.001)
        with turns.taken() as third:
            assert not third
        assert got == []
    waiting.join()
    assert got == [True]
    with turns.taken() as again:
        assert again


def test_what_counts_as_one_address():
    assert _network("192.0.2.7") == "192.0.2.7"
    assert _network("2001:db8:1:2:3::4") == _network("2001:db8:1:2::5") == "2001:db8:1:2::/64"
    assert _network("2001:db8:1:3::4") != _network("2001:db8:1:2::4")
    assert _network("") == ""
    assert _network("a name") == "a name"
