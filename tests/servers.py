"""Starts servers from their own packages, for slow tests; tools/install_servers.sh installs them."""

import contextlib
import os
import signal
import subprocess
import urllib.request
from pathlib import Path

import web

ROOT = Path(__file__).parent.parent
SERVERS = Path(os.environ.get("AUDITOR_SERVERS", ROOT / ".venv-servers"))
KSERVE = SERVERS.with_name(SERVERS.name + "-kserve") / "bin"
TORCHSERVE = SERVERS.with_name(SERVERS.name + "-torchserve") / "bin"
START_S = 240.0


@contextlib.contextmanager
def started(command, *, programs, folder, ready):
    """Run a program of ``programs`` in ``folder`` until the block ends; it is up once ``ready`` answers 200."""
    assert (programs / command[0]).exists(), "run tools/install_servers.sh, or name its folder in AUDITOR_SERVERS"
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    # Some keep the number of their process among the temporary files, and refuse to start where one is left.
    environment["TMPDIR"] = str(folder)

    def answers():
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        with contextlib.suppress(OSError), urllib.request.urlopen(ready, timeout=5) as response:
            return response.status == 200
        return False

    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(programs / command[0]), *command[1:]],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            # A group of its own, because most start further processes, which outlive the first one.
            start_new_session=True,
        )
        try:
            web.wait_until(answers, timeout_s=START_S)
            yield
        finally:
            stop(process)


def stop(process):
    """End a process with all that it started: at first politely, and then whatever is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
