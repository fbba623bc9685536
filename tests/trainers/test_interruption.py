"""Graceful stops by signals."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from effcap.trainers.engine.interruption import Interruption


@pytest.mark.parametrize("number", Interruption.SIGNALS)
def test_the_first_signal_is_a_request_and_the_second_has_its_usual_effect(number):
    calls = []
    before = signal.signal(number, lambda *_: calls.append(1))
    try:
        with Interruption() as interruption:
            assert not interruption.requested
            os.kill(os.getpid(), number)
            assert interruption.requested and not calls
            os.kill(os.getpid(), number)
            assert calls == [1]
        os.kill(os.getpid(), number)
        assert calls == [1, 1]
    finally:
        signal.signal(number, before)


def test_signal_handlers_are_restored():
    before = [signal.getsignal(number) for number in Interruption.SIGNALS]
    with Interruption():
        assert [signal.getsignal(number) for number in Interruption.SIGNALS] != before
    assert [signal.getsignal(number) for number in Interruption.SIGNALS] == before


def test_other_threads_are_not_interrupted():
    requests = []

    def enter():
        with Interruption() as interruption:
            requests.append(interruption.requested)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert requests == [False]
