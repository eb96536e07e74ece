"""Where this tool keeps keys and certificates of its own between runs."""

import os
import sys
from pathlib import Path

VARIABLE = "AUDITOR_HOME"


def home() -> Path:
    """Return the folder for keys and certificates; it need not exist yet.

    ``AUDITOR_HOME`` names it; otherwise it is the platform's usual place for an application's settings.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "auditor"
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / "auditor"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "auditor"
