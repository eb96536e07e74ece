import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Two test processes with one thread each beat threads that wait for one another on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A suite started in the background of a shell inherits an ignored Ctrl-C, and so would programs that it interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Shared test material (protocols.py, cases.py) is imported by name from here.
sys.path.insert(0, str(Path(__file__).parent))

# Shared machines are slow at random moments, and a suite that signs evidence must give the same result every run.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(autouse=True, scope="session")
def _own_home(tmp_path_factory):
    """Keep keys and certificates that tests make away from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDITOR_HOME", str(tmp_path_factory.mktemp("home")))
        yield
