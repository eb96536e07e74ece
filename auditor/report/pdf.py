"""The report as PDF/A-3a with the results attached, made in a separate process after the evidence is on disk."""

import hashlib
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from auditor.errors import MissingPartError
from auditor.report import pdf_worker

logger = logging.getLogger(__name__)

RESULTS_NAME = "results.json"
SEAL_NAME = "k.seal.json"
SYSTEM_PARTS = "libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0"
TIME_LIMIT_S = 120.0


def make_pdf(
    html: bytes,
    *,
    results: bytes,
    seal: bytes,
    issued_at: str,
    time_limit_s: float = TIME_LIMIT_S,
    worker: Path | None = None,
) -> bytes:
    """Render the report's HTML to an unsigned PDF/A-3a.

    The page may open nothing but its own ``data:`` addresses. The same input gives the same bytes with the same
    versions of renderer and native libraries. Produced as PDF/A-3a; conformance is not validated independently.

    Args:
        html: bytes of report.html; their digest becomes the file identifier.
        results: bytes of results.json, attached unchanged.
        seal: bytes of k.seal.json, attached unchanged.
        issued_at: RFC 3339 time that the file states for itself and its attachments.
        time_limit_s: seconds after which the renderer is stopped.
        worker: the script to run instead of the package's own, for tests.

    Raises:
        MissingPartError: the renderer or its native libraries are missing, crashed or ran out of time; report.html
            is complete without it.
    """
    # A PDF lists its attachments in the order of their names.
    attached = (
        (SEAL_NAME, seal, "Seal of the key set and the protocol"),
        (RESULTS_NAME, results, "Results of the examination"),
    )
    return make_attached_pdf(html, attached=attached, issued_at=issued_at, time_limit_s=time_limit_s, worker=worker)


def make_attached_pdf(
    html: bytes,
    *,
    attached: Sequence[tuple[str, bytes, str]],
    issued_at: str,
    time_limit_s: float = TIME_LIMIT_S,
    worker: Path | None = None,
) -> bytes:
    """Render a page to an unsigned PDF/A-3a with files attached; see :func:`make_pdf`.

    Args:
        html: bytes of the page.
        attached: name, bytes and description of each file, in the order of their names.
        issued_at: RFC 3339 time that the file states for itself and its attachments.
        time_limit_s: seconds after which the renderer is stopped.
        worker: the script to run instead of the package's own, for tests.

    Raises:
        MissingPartError: the renderer or its native libraries are missing, crashed or ran out of time.
    """
    with tempfile.TemporaryDirectory(prefix="auditor-pdf-") as name:
        folder = Path(name)
        _write_job(folder, html=html, attached=attached, issued_at=issued_at)
        # -P keeps the script's own folder out of the import path, where html.py would shadow the standard library.
        command = [sys.executable, "-P", str(worker or pdf_worker.__file__), str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=time_limit_s, check=False, cwd=folder)
        except subprocess.TimeoutExpired as error:
            raise _not_made(f"the renderer did not finish within {time_limit_s:g} s") from error
        logger.debug("PDF renderer ended with %d: %s", done.returncode, done.stderr[-2000:].decode("utf-8", "replace"))
        if done.returncode == pdf_worker.EXIT_MISSING:
            raise MissingPartError(
                f"report.pdf was not made: WeasyPrint cannot start; install {SYSTEM_PARTS}; report.html is complete"
            )
        made = folder / "report.pdf"
        if done.returncode != pdf_worker.EXIT_MADE or not made.is_file():
            raise _not_made(f"the renderer ended with code {done.returncode}")
        return made.read_bytes()


def file_identifier(html: bytes) -> bytes:
    """Return the 16 bytes that tie a PDF to the HTML it was made from."""
    return hashlib.sha256(html).digest()[:16]


def _write_job(folder: Path, *, html: bytes, attached: Sequence[tuple[str, bytes, str]], issued_at: str) -> None:
    (folder / "report.html").write_bytes(html)
    job: dict[str, object] = {"identifier": file_identifier(html).hex(), "issued": issued_at, "attachments": []}
    entries = []
    for number, (name, data, description) in enumerate(attached):
        (folder / f"attachment-{number}").write_bytes(data)
        entries.append({"file": f"attachment-{number}", "name": name, "description": description})
    job["attachments"] = entries
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")


def _not_made(why: str) -> MissingPartError:
    return MissingPartError(f"report.pdf was not made: {why}; report.html is complete")
