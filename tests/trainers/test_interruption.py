"""Stopping in good order."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from effcap.trainers.engine.interruption import Interruption


@pytest.mark.parametrize("number", Interruption.SIGNALS)
def test_the_first_signal_asks_and_the_second_does_what_it_always_did(number):
    came = []
    before = signal.signal(number, lambda *_: came.append(1))
    try:
        with Interruption() as interruption:
            assert not interruption.asked
            os.kill(os.getpid(), number)
            assert interruption.asked and not came
            os.kill(os.getpid(), number)
            assert came == [1]
        os.kill(os.getpid(), number)
        assert came == [1, 1]
    finally:
        signal.signal(number, before)


def test_it_leaves_signals_as_they_were():
    before = [signal.getsignal(number) for number in Interruption.SIGNALS]
    with Interruption():
        assert [signal.getsignal(number) for number in Interruption.SIGNALS] != before
    assert [signal.getsignal(number) for number in Interruption.SIGNALS] == before


def test_other_threads_do_without_it():
    found = []

    def work():
        with Interruption() as interruption:
            found.append(interruption.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
