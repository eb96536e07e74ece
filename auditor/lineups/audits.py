"""What examiner and judge do: audit every candidate under one plan, and ask the opened ones again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from auditor import casefile
from auditor.audit import Request
from auditor.canonical import Fields, parse_canonical_object, sha256_hex
from auditor.errors import EvidenceError, SealError, UsageError
from auditor.evidence import lineup as lists
from auditor.evidence.keyset import OpenedKeySet
from auditor.evidence.lineup import Candidate
from auditor.evidence.lineup_check import LineUpFiles
from auditor.evidence.signing import SigningKey
from auditor.evidence.token_files import is_token_of, tokens_among
from auditor.lineups.custody import read_part
from auditor.records import Inputs, Progress
from auditor.results import Headline, headline
from auditor.suspects import open_suspect
from auditor.time_authority import TimeAuthorities


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How the examiner asks."""

    examiner_name: str = ""
    examiner: SigningKey | None = None
    signer_file: Path | None = None
    authorities: TimeAuthorities | None = None
    seal_tokens: Sequence[bytes] = ()
    timeout_s: float = 60.0
    batch_size: int = 64


def run(
    commitment: bytes,
    *,
    opened: OpenedKeySet,
    relay_url: str,
    folder: Path,
    ledger: Path,
    options: RunOptions,
    progress: Progress,
) -> dict[str, Headline]:
    """Audit every candidate in the order of the labels, each into a bundle of its own; finished ones are kept.

    Every audit is drawn with the commitment's digest, and the level of each is divided by the same number: at least
    the number of candidates.

    Raises:
        UsageError: a folder holds an audit that stopped.
        EvidenceError: the commitment is broken or of another key set.
        SuspectError: the relay cannot be reached.
    """
    lineup = lists.open_lineup(commitment)
    if lineup.seal_sha256 != sha256_hex(opened.envelope):
        raise SealError("the line-up was committed to for another key set")
    kept = casefile.Ledger(path=ledger, opened=opened)
    plain = casefile.request(
        opened,
        alpha=None,
        max_queries=None,
        operator=options.examiner_name,
        judge_nonce=lists.nonce_of(commitment),
    )
    folder.mkdir(parents=True, exist_ok=True)
    family = _family(folder, kept, plain, n_candidates=len(lineup.placed))
    found: dict[str, Headline] = {}
    for placed in lineup.placed:
        target = folder / placed.label
        if (target / "manifest.dsse.json").exists():
            found[placed.label] = _finished(target)
            continue
        if target.exists():
            raise UsageError(f"{target}: an audit stopped here; verify --resume {target} goes on")
        progress.note(f"candidate {placed.label}")
        asked = kept.admit(replace(plain, family=family), reuse=True)
        endpoint = f"{relay_url.rstrip('/')}/{placed.place}"
        with kept.recording(target):
            found[placed.label] = _audit(opened, endpoint, target, request=asked, options=options, progress=progress)
    return found


def _audit(
    opened: OpenedKeySet, endpoint: str, folder: Path, *, request: Request, options: RunOptions, progress: Progress
) -> Headline:
    with open_suspect(
        endpoint=endpoint,
        batch_size=options.batch_size,
        timeout_s=options.timeout_s,
        classes=opened.seal.spec.classes,
    ) as suspect:
        case = casefile.verify(
            opened=opened,
            suspect=suspect,
            folder=folder,
            request=request,
            signer_file=options.signer_file,
            examiner=options.examiner,
            seal_tokens=options.seal_tokens,
            authorities=options.authorities,
            progress=progress,
        )
    return case.headline


def _family(folder: Path, kept: casefile.Ledger, plain: Request, *, n_candidates: int) -> int:
    """Return the number that every audit of the line-up divides its level by: what was asked before, and all of it."""
    for path in sorted(folder.glob("*/results.json")):
        section = parse_canonical_object(path.read_bytes(), what=path.name).get("multiplicity")
        return Fields(section, what="results.multiplicity").integer("family", low=1)
    # The ledger counts the suspects before, and one to come; here several come at once.
    return kept.admit(plain, reuse=True).family - 1 + n_candidates


def _finished(folder: Path) -> Headline:
    try:
        results = (folder / "results.json").read_bytes()
    except OSError as error:
        raise EvidenceError(f"{folder}: the bundle has no results ({type(error).__name__})") from error
    return headline(parse_canonical_object(results, what="results.json"))


def read_files(lineup: Path, audits: Path) -> LineUpFiles:
    """Return what a re-check looks at; bundles are the folders in ``audits``, each named by its letter.

    Raises:
        UsageError: a folder or file is missing.
        EvidenceError: the time stamps beside the commitment are broken.
    """
    for folder in (lineup, audits):
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
    commitment = read_part(lineup, lists.COMMITMENT)
    beside = {path.name: path.read_bytes() for path in lineup.iterdir() if is_token_of(path.name, lists.COMMITMENT)}
    return LineUpFiles(
        commitment=commitment,
        commitment_tokens=tokens_among(beside, lists.COMMITMENT),
        opening=read_part(lineup, lists.OPENING),
        record=read_part(lineup, lists.RECORD, required=False),
        audits={path.name: path for path in sorted(audits.iterdir()) if path.is_dir()},
    )


class Replayer:
    """Asks opened candidates again, where their model files are at hand."""

    def __init__(self, folder: Path) -> None:
        """Take a folder that holds model folders or files; which is which is told by digests.

        Raises:
            UsageError: no such folder.
        """
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
        self._models: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix == ".json":
                continue
            with open_suspect(model=path) as suspect:
                self._models[suspect.describe().suspect.artefact_sha256] = path

    def __call__(self, candidate: Candidate, inputs: Inputs) -> Sequence[int] | None:
        """Return the candidate's labels; None where its file is not there."""
        path = self._models.get(candidate.artefact_sha256) if candidate.artefact_sha256 else None
        if path is None:
            return None
        with open_suspect(model=path) as suspect:
            return [answer.label for answer in suspect.query_all(inputs)]
