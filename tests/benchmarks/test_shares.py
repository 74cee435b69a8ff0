"""The shares of a whole: what is watched, and that nothing counts twice."""

import time

import pytest

from benchmarks import shares


class Work:
    """A network that reads within its forward pass."""

    def forward(self) -> None:
        clock.sleep(3)
        self.read()

    def read(self) -> None:
        clock.sleep(1)


class Clock:
    now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


clock = Clock()


def test_parts_add_up_to_the_whole_and_nested_calls_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(shares, "PARTS", {"network": [(Work, "forward")], "reading": [(Work, "read")]})
    work, forward = Work(), Work.forward

    def evaluate() -> None:
        work.forward()
        work.read()
        clock.sleep(0.5)

    found = shares.shares(evaluate, rounds=2)
    assert found == {"all": 5.5, "network": 4, "reading": 1, "rest": 0.5}
    assert Work.forward is forward


def test_every_part_that_is_watched_is_there() -> None:
    for places in shares.PARTS.values():
        for owner, name in places:
            assert callable(getattr(owner, name))
