"""Versions and platform of an examination, for ``env.json``."""

import platform
import sys
from importlib import metadata

from auditor import __version__
from auditor.canonical import JsonValue

RECORDED_PACKAGES = (
    "cryptography", "jinja2", "matplotlib", "numpy", "pyhanko", "pyrage", "requests", "rfc3161-client", "rfc8785",
    "scipy", "statsmodels", "torch", "weasyprint",
)  # fmt: skip


def environment() -> dict[str, JsonValue]:
    """Return versions and platform for env.json."""
    versions: dict[str, JsonValue] = {}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "schema": "mlaudit.environment/1",
        "auditor": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "byte_order": sys.byteorder,
        "packages": versions,
    }
