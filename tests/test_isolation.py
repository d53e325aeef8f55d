"""The limit on time that is not ours, and how it leaves other alarms alone."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from vaezoo.plugins.isolation import TookTooLong, deadline

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no alarms here")


@pytest.fixture
def rings() -> Iterator[list[float]]:
    """When somebody else's alarm went off."""
    heard: list[float] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(time.monotonic())

    before = signal.signal(signal.SIGALRM, hear)
    yield heard
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_what_is_in_time_is_left_alone() -> None:
    handler = signal.getsignal(signal.SIGALRM)
    with deadline(60):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is handler


def test_a_sleep_ends() -> None:
    begun = time.monotonic()
    with pytest.raises(TookTooLong, match=r"more than 0\.05 s"), deadline(0.05):
        time.sleep(30)
    assert time.monotonic() - begun < 10
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_who_swallows_one_alarm_gets_another() -> None:
    def stubborn() -> None:
        with deadline(0.05):
            with contextlib.suppress(BaseException):
                time.sleep(30)
            swallowed.append(True)
            time.sleep(30)

    swallowed: list[bool] = []
    with pytest.raises(TookTooLong):
        stubborn()
    assert swallowed


def test_an_alarm_that_was_set_goes_off_afterwards(rings: list[float]) -> None:
    begun = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with deadline(60):
        time.sleep(0.05)
    assert rings == []
    time.sleep(0.3)
    assert len(rings) == 1
    assert rings[0] - begun >= 0.19


def test_an_alarm_that_came_due_meanwhile_is_late_and_not_lost(rings: list[float]) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    with deadline(60):
        time.sleep(0.06)
    time.sleep(0.1)
    assert len(rings) == 1


def test_off_the_main_thread_there_is_no_limit() -> None:
    done = []

    def work() -> None:
        with deadline(0.01):
            time.sleep(0.05)
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
