"""Ctrl-C is held back while an answer is written down, and strikes otherwise."""

import os
import signal
import threading

import pytest

from auditor.interruption import Shield


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_waits_until_the_block_has_ended():
    shield, done = Shield(), []

    def struck():
        with shield:
            press()
            done.append("written")
        done.append("not reached")

    with shield.raised(), pytest.raises(KeyboardInterrupt):
        struck()
    assert done == ["written"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_strikes_at_once_between_blocks_and_only_once():
    shield = Shield()
    with shield.raised():
        with shield:
            pass
        with pytest.raises(KeyboardInterrupt):
            press()
        # The next block owes nothing for it.
        with shield:
            pass


def test_what_the_block_met_is_not_lost_behind_ctrl_c():
    shield = Shield()

    def struck():
        with shield:
            press()
            raise OSError("the disk is full")

    with shield.raised(), pytest.raises(KeyboardInterrupt) as caught:
        struck()
    assert isinstance(caught.value.__context__, OSError)


def test_the_callers_own_handler_is_the_one_that_is_called():
    shield, calls = Shield(), []
    before = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
    try:
        with shield.raised(), shield:
            press()
            assert calls == []
        assert calls == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_ignored_ctrl_c_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Shield().raised():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            press()
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_has_nothing_to_hold_back():
    seen = []

    def work():
        shield = Shield()
        with shield.raised(), shield:
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
