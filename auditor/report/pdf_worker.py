"""Turns HTML into PDF/A-3a in a process of its own, because the renderer's native libraries can crash.

Started as a script with one argument, a folder that holds ``job.json``, ``report.html`` and the attachments; writes
``report.pdf`` there. Exit codes: 0 made, 3 the renderer or a native library is missing, 4 it refused the page. Only the
standard library and the renderer are imported, so nothing else of this package runs here.
"""

import json
import sys
from datetime import datetime
from io import BytesIO
from pathlib import Path

EXIT_MADE = 0
EXIT_MISSING = 3
EXIT_REFUSED = 4
VARIANT = "pdf/a-3a"


def render(folder: Path) -> int:
    """Render the job in ``folder`` and return the exit code."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    try:
        # Missing native libraries show as OSError, a missing package as ImportError.
        from weasyprint import HTML, Attachment
        from weasyprint.urls import URLFetcher
    except (ImportError, OSError) as error:
        sys.stderr.write(f"{type(error).__name__}\n")
        return EXIT_MISSING

    refused: list[str] = []

    class DataOnly(URLFetcher):  # type: ignore[misc]
        """Lets the page reach what it carries itself and nothing else."""

        def fetch(self, url: str, headers: object = None) -> object:
            """Open a ``data:`` address; refuse any other."""
            if not url.startswith("data:"):
                refused.append(url[:80])
                raise ValueError("only data: addresses may be opened")
            return super().fetch(url, headers)

    moment = datetime.fromisoformat(job["issued"])
    attachments = [
        Attachment(
            file_obj=BytesIO((folder / item["file"]).read_bytes()),
            name=item["name"],
            description=item["description"],
            created=moment,
            modified=moment,
            relationship="Data",
        )
        for item in job["attachments"]
    ]
    page = HTML(string=(folder / "report.html").read_text(encoding="utf-8"), url_fetcher=DataOnly())
    pdf = page.write_pdf(pdf_variant=VARIANT, pdf_identifier=bytes.fromhex(job["identifier"]), attachments=attachments)
    if refused:
        sys.stderr.write(f"the page asked for {len(refused)} outside resources\n")
        return EXIT_REFUSED
    (folder / "report.pdf").write_bytes(pdf)
    return EXIT_MADE


if __name__ == "__main__":
    sys.exit(render(Path(sys.argv[1])))
