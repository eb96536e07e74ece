"""One pace for all lanes: rate, patience asked of one is asked of all, and one goes first afterwards."""

import json
import threading

import numpy as np
import pytest
import web

from auditor.errors import SuspectUnavailableError
from auditor.suspects.http import HttpSuspect
from auditor.suspects.http.pace import Pace, StoppedError

TWO = np.zeros((2, 1, 4, 4), dtype=np.uint8)
GOOD = json.dumps({"answers": [{"label": 1}, {"label": 2}]}).encode()


def suspect_at(url, **settings):
    return HttpSuspect(url, **{"timeout_s": 10.0, "max_attempts": 1, "sleep": lambda seconds: None} | settings)


class Clock:
    """A clock that moves only when somebody waits."""

    def __init__(self):
        self.now_s = 100.0
        self.slept = []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now_s += seconds

    def pace(self, lanes=4, spacing_s=0.0):
        return Pace(lanes=lanes, spacing_s=spacing_s, sleep=self.sleep, steady_s=lambda: self.now_s)


def test_patience_asked_of_one_lane_holds_every_other_back():
    clock = Clock()
    pace = clock.pace()
    pace.enter()
    number = pace.pause(7.0)
    pace.leave(answered=False)
    pace.enter()
    assert clock.slept == [7.0]
    pace.leave(answered=True)
    # Who waited out the pause on its own account does not wait again.
    pace.enter(served=number)
    assert clock.slept == [7.0]


def test_a_longer_pause_that_begins_while_one_waits_is_waited_out_too():
    clock = Clock()
    pace = clock.pace()
    sleep = clock.sleep

    def disturbed(seconds):
        sleep(seconds)
        if len(clock.slept) == 1:
            pace.pause(5.0)

    pace._sleep = disturbed
    pace.pause(2.0)
    pace.enter()
    assert clock.slept == [2.0, 5.0]


def test_after_a_pause_one_goes_first_and_each_answer_admits_one_more():
    clock = Clock()
    pace = clock.pace(lanes=3)
    for _ in range(3):
        pace.enter()
    pace.pause(1.0)
    for _ in range(3):
        pace.leave(answered=False)
    entered = []

    def lane(name):
        pace.enter()
        entered.append(name)

    threads = [threading.Thread(target=lane, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    web.wait_until(lambda: len(entered) == 1)
    threads[entered[0]].join()
    assert len(entered) == 1
    pace.leave(answered=True)
    web.wait_until(lambda: len(entered) == 3)
    for thread in threads:
        thread.join()


def test_the_rate_is_kept_over_all_lanes():
    clock = Clock()
    pace = clock.pace(spacing_s=2.0)
    started = []
    for _ in range(4):
        pace.enter()
        started.append(clock.now_s)
    assert started == [100.0, 102.0, 104.0, 106.0]


def test_stopping_lets_nobody_leave_and_wakes_who_waits():
    pace = Pace(lanes=1, spacing_s=0.0, sleep=None, steady_s=lambda: 0.0)
    pace.enter()
    ended = []

    def lane(wait):
        with pytest.raises(StoppedError):
            wait()
        ended.append(1)

    threads = [threading.Thread(target=lane, args=(wait,)) for wait in (pace.enter, lambda: pace.wait(3600.0))]
    for thread in threads:
        thread.start()
    pace.stop()
    for thread in threads:
        thread.join(timeout=20)
    assert len(ended) == 2


def test_retry_after_holds_the_other_lanes_back_on_a_real_connection():
    clock = Clock()
    steps = (web.sends(429, headers={"Retry-After": "9"}), web.sends(body=GOOD))
    timed = {"sleep": clock.sleep, "steady_s": lambda: clock.now_s}
    with web.faulty(*steps) as server, suspect_at(server.url, concurrency=2, **timed) as suspect:
        with pytest.raises(Exception, match="HTTP 429"):
            suspect.query(TWO)
        assert clock.slept == []
        suspect.query(TWO)
    assert clock.slept == [9.0]


def test_a_question_under_way_is_cut_off_when_the_audit_is_called_off():
    arrived = threading.Event()

    def never(handler):
        arrived.set()
        handler.connection.settimeout(20)
        handler.connection.recv(1)

    with web.faulty(never) as server, suspect_at(server.url, concurrency=2, max_attempts=3, sleep=None) as suspect:
        caught = []

        def ask():
            try:
                suspect.query(TWO)
            except SuspectUnavailableError as error:
                caught.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert arrived.wait(20)
        suspect.cancel()
        thread.join(timeout=20)
    assert "called off" in str(caught[0])
    assert len(server.requests) == 1


def test_several_lanes_use_one_connection_each():
    both = threading.Barrier(2, timeout=20)

    def together(handler):
        both.wait()
        web.sends(body=GOOD)(handler)

    with web.faulty(together) as server, suspect_at(server.url, concurrency=2) as suspect:
        threads = [threading.Thread(target=suspect.query, args=(TWO,)) for _ in range(2)]
        for _ in range(2):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=20)
            threads = [threading.Thread(target=suspect.query, args=(TWO,)) for _ in range(2)]
        assert len(suspect._transports) == 2
    assert len(server.requests) == 4
    assert suspect.n_requests == 4
