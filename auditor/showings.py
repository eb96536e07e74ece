"""The ledger of shown keys around one audit: what may be asked, and what was."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from auditor.audit import Request
from auditor.errors import EvidenceError, UsageError
from auditor.evidence.keyset import OpenedKeySet
from auditor.evidence.ledger import Showing, append_showing, keys_asked, read_ledger, shown_keys
from auditor.evidence.manifest import TRANSCRIPT
from auditor.evidence.schedule import draw_schedule, judge_seed, opening_length
from auditor.evidence.times import utc_text
from auditor.evidence.transcript import Transcript, read_transcript, recoverable_prefix
from auditor.records import SampleKind

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The ledger of shown keys around one audit."""

    path: Path
    opened: OpenedKeySet

    def admit(self, request: Request, *, reuse: bool) -> Request:
        """Return the request, with a deviation where keys of the first stage were shown before.

        Every suspect in the ledger is a question that might have been reported instead, and counts in the family.

        Raises:
            UsageError: such keys would be asked and ``reuse`` is False.
            EvidenceError: the ledger is broken.
        """
        seal = self.opened.seal
        judge = judge_seed(request.judge_nonce, seal.merkle_root) if request.judge_nonce else None
        first = draw_schedule(seal.protocol, judge=judge)[: opening_length(seal.protocol)]
        planned = {probe.index for probe in first if probe.kind is SampleKind.KEY}
        showings = read_ledger(self.path, seal=seal)
        family = seal.serial + len({showing.suspect for showing in showings})
        request = replace(request, family=max(request.family, family))
        burned = len(planned & shown_keys(showings))
        if not burned:
            return request
        if not reuse:
            raise UsageError(
                f"{burned} of the {len(planned)} keys of the first stage were shown to a suspect before "
                f"({self.path.name}); --reuse-keys asks them all the same and records it"
            )
        told = f"{burned} of the {len(planned)} keys of the first stage had been shown to a suspect before"
        return replace(request, deviations=(*request.deviations, told))

    @contextmanager
    def recording(self, folder: Path) -> Iterator[None]:
        """Write down what was shown, however the audit in ``folder`` ends; one that goes on adds what it showed."""
        file = folder / TRANSCRIPT
        before = file.read_bytes() if file.is_file() else b""
        try:
            yield
        except UsageError:
            # Nothing was asked, and the folder may be another process's.
            raise
        except BaseException:
            self._note(file, before)
            raise
        else:
            self._note(file, before)

    def _note(self, file: Path, before: bytes) -> None:
        try:
            data = file.read_bytes() if file.is_file() else b""
            transcript = read_transcript(whole) if (whole := recoverable_prefix(data)) else None
            if transcript is None or transcript.preamble.get("keyset_id") != self.opened.seal.keyset_id:
                return
            asked = set(keys_asked(self.opened.seal, transcript))
            # A process that was killed wrote no line about the keys it showed.
            if asked and (data != before or not asked <= shown_keys(read_ledger(self.path, seal=self.opened.seal))):
                self._write(transcript)
        except (EvidenceError, OSError) as error:
            logger.warning("the ledger of shown keys was not extended: %s", error)

    def _write(self, transcript: Transcript) -> None:
        suspect = transcript.preamble.get("suspect")
        showing = Showing(
            at=utc_text(datetime.now(UTC)),
            keyset_id=self.opened.seal.keyset_id,
            suspect=str(suspect.get("uri", "")) if isinstance(suspect, dict) else "",
            by=str(transcript.preamble.get("operator", "")),
            transcript_head=transcript.head,
            keys=keys_asked(self.opened.seal, transcript),
        )
        append_showing(self.path, showing, seal=self.opened.seal)
