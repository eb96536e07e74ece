"""Starts servers from their own packages, for slow tests; tools/install_servers.sh installs them."""

import contextlib
import os
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

    def answers():
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        with contextlib.suppress(OSError), urllib.request.urlopen(ready, timeout=5) as response:
            return response.status == 200
        return False

    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(programs / command[0]), *command[1:]], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            web.wait_until(answers, timeout_s=START_S)
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
