import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from auditor.errors import TrainingError, UsageError
from auditor.study.workers import LocalWorkers, Task


def double(number):
    return 2 * number


def refuse(text):
    raise TrainingError(text)


def be_killed_once(marker):
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def be_killed_always():
    os.kill(os.getpid(), signal.SIGKILL)


def break_down():
    raise ZeroDivisionError


def run(tasks, count=2):
    with LocalWorkers(count) as workers:
        return {done.key: done for done in workers.run(tasks)}


def test_every_task_comes_back_once():
    done = run([Task(key=str(n), function=double, arguments=(n,)) for n in range(5)])
    assert {key: found.value for key, found in done.items()} == {str(n): 2 * n for n in range(5)}


def test_an_error_of_ours_is_one_line_and_stops_nobody_else():
    done = run(
        [
            Task(key="bad", function=refuse, arguments=("the loss is NaN",)),
            Task(key="good", function=double, arguments=(4,)),
        ]
    )
    assert done["bad"].error == "the loss is NaN"
    assert done["good"].value == 8


def test_a_bug_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        run([Task(key="bug", function=break_down, arguments=())])


def test_a_killed_worker_is_replaced_and_its_task_done_again(tmp_path: Path):
    tasks = [Task(key="killed", function=be_killed_once, arguments=(tmp_path / "was-here",))]
    assert run(tasks, count=1)["killed"].value == "survived"


def test_a_task_that_kills_every_worker_is_given_up():
    assert "lost" in run([Task(key="deadly", function=be_killed_always, arguments=())], count=1)["deadly"].error


def test_a_task_that_kills_every_worker_costs_no_other_task_its_result():
    # The deadly one comes first and there is one worker: in a common pool nothing after it would ever start.
    tasks = [Task(key="deadly", function=be_killed_always, arguments=())]
    tasks += [Task(key=str(n), function=double, arguments=(n,)) for n in range(3)]
    done = run(tasks, count=1)
    assert "lost" in done["deadly"].error
    assert "\n" not in done["deadly"].error
    assert {key: found.value for key, found in done.items() if key != "deadly"} == {str(n): 2 * n for n in range(3)}


RAY = """
import os, signal, sys
from pathlib import Path
from auditor.study.workers import RayWorkers, Task

def be_killed_once(marker):
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"

def be_killed_always():
    os.kill(os.getpid(), signal.SIGKILL)

tasks = [
    Task(key="killed", function=be_killed_once, arguments=(Path(sys.argv[1]),)),
    Task(key="deadly", function=be_killed_always, arguments=()),
]
with RayWorkers("local") as workers:
    done = {each.key: each for each in workers.run(tasks)}
print(done["killed"].value, "|", done["deadly"].error)
"""


@pytest.mark.slow
def test_killed_workers_of_a_ray_cluster_are_replaced_or_given_up(tmp_path: Path):
    pytest.importorskip("ray")
    command = [sys.executable, "-c", RAY, str(tmp_path / "was-here")]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "survived | its worker was lost (WorkerCrashedError)\n"


RAY_BUG = """
from auditor.study.workers import RayWorkers, Task

def break_down():
    raise ZeroDivisionError("a bug")

try:
    with RayWorkers("local") as workers:
        list(workers.run([Task(key="bug", function=break_down, arguments=())]))
except ZeroDivisionError as error:
    print("raised", type(error.cause).__name__)
"""


@pytest.mark.slow
def test_a_bug_on_a_ray_cluster_is_no_lost_worker():
    pytest.importorskip("ray")
    finished = subprocess.run([sys.executable, "-c", RAY_BUG], capture_output=True, text=True, timeout=500, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "raised ZeroDivisionError\n"


def test_no_task_needs_no_pool():
    assert run([]) == {}


def test_at_least_one_worker():
    with pytest.raises(UsageError):
        LocalWorkers(0)
