"""What the custodian does: commit to a secret order, serve the candidates, open the list."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from auditor import __version__, casefile
from auditor.canonical import Fields, JsonValue, canonical_bytes, parse_canonical_object, sha256_hex
from auditor.draws import DrawStream
from auditor.errors import MalformedError, SealError, UsageError
from auditor.evidence import lineup as lists
from auditor.evidence.lineup import Candidate, LineUp, OpenedLineUp, Revealed
from auditor.evidence.relay_record import RecordWriter, drop_torn_line
from auditor.evidence.seal import Seal, open_seal
from auditor.evidence.signing import SigningKey
from auditor.evidence.storage import write_new
from auditor.evidence.times import utc_text
from auditor.evidence.timestamps import verify_digest_token
from auditor.evidence.token_files import add_beside
from auditor.lineups.listing import MAX_LIST_BYTES, Listed, Source
from auditor.report.home import home
from auditor.time_authority import TimeAuthorities

if TYPE_CHECKING:
    from starlette.applications import Starlette

logger = logging.getLogger(__name__)

SECRET_SCHEMA = "mlaudit.lineup-secret/1"
CUSTODIAN_KEY_NAME = "custodian.ed25519.pem"

Entropy = Callable[[int], bytes]
"""Returns so many random bytes."""


def custodian_key() -> SigningKey:
    """Return the custodian's signing key, made on first use and kept with mode 0600."""
    path = home() / CUSTODIAN_KEY_NAME
    if not path.exists():
        logger.info("making a custodian's key on first use: %s", path.name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        SigningKey.generate().write_pem(path)
    return SigningKey.from_pem(path.read_bytes())


def plan(
    listed: Sequence[Listed],
    *,
    seal_envelope: bytes,
    folder: Path,
    key: SigningKey,
    revealed: Revealed = Revealed.LABELS,
    authorities: TimeAuthorities | None = None,
    entropy: Entropy = os.urandom,
) -> LineUp:
    """Permute the candidates in secret, commit to them, and write commitment and secret list; nothing is asked.

    Raises:
        UsageError: the folder is in use, or the candidates make no line-up.
        SuspectError: a candidate cannot be opened or reached.
        TimestampError: a time stamp is not over its model.
    """
    casefile.refuse_used_folder(folder)
    seal = open_seal(seal_envelope)
    order = DrawStream(entropy(32)).permutation(len(listed))
    candidates: list[Candidate] = []
    sources: dict[str, Source] = {}
    n_labels: list[int | None] = []
    for position, index in enumerate(order):
        label = lists.label_of(position)
        candidate, declared = _described(listed[index], label=label, seal=seal, entropy=entropy)
        candidates.append(candidate)
        n_labels.append(declared)
        sources[label] = listed[index].source
    problem = lists.candidates_problem(candidates)
    if problem:
        raise UsageError(problem)
    lineup = LineUp(
        seal_sha256=sha256_hex(seal_envelope),
        placed=lists.placed_of(candidates),
        revealed=revealed,
        n_outputs=_n_outputs(n_labels, seal=seal, revealed=revealed),
        custodian_public_key=key.public.hex(),
        committed_at=utc_text(casefile.utc_now()),
        tool_version=__version__,
    )
    signed = lists.sign_lineup(lineup, key=key)
    folder.mkdir(parents=True, exist_ok=True)
    _write_secret(folder / lists.SECRET, candidates, sources, commitment=signed, seal_envelope=seal_envelope)
    write_new(folder / lists.COMMITMENT, signed)
    add_beside(folder / lists.COMMITMENT, () if authorities is None else authorities.stamp(signed))
    return lineup


def _described(each: Listed, *, label: str, seal: Seal, entropy: Entropy) -> tuple[Candidate, int | None]:
    with each.source.opened(classes=seal.spec.classes) as suspect:
        found = suspect.describe()
    if found.input_shape is not None and found.input_shape != seal.spec.shape:
        raise UsageError(f"{each.name}: takes inputs of another shape than the key set's")
    is_file = found.suspect.kind == "file"
    digest = found.suspect.artefact_sha256 if is_file else ""
    for raw in each.tokens:
        verify_digest_token(raw, sha256=digest, what=f"a time stamp of {each.name}", roots=())
    candidate = Candidate(
        label=label,
        place=entropy(lists.PLACE_BYTES).hex(),
        name=each.name,
        role=each.role,
        artefact_sha256=digest,
        address="" if is_file else found.suspect.uri,
        tokens=each.tokens,
        salt=entropy(32).hex(),
    )
    return candidate, found.n_labels


def _n_outputs(n_labels: Sequence[int | None], *, seal: Seal, revealed: Revealed) -> int:
    known = [n for n in n_labels if n is not None]
    if revealed is Revealed.SCORES:
        if len(set(n_labels)) != 1 or not known:
            raise UsageError("scores can be passed on only where all candidates declare the same number of labels")
        return known[0]
    # One more than the natural classes, so that a further output tells nobody apart.
    return max([len(seal.spec.classes) + 1, *known])


def _write_secret(
    path: Path,
    candidates: Sequence[Candidate],
    sources: Mapping[str, Source],
    *,
    commitment: bytes,
    seal_envelope: bytes,
) -> None:
    items: list[JsonValue] = [
        {
            "candidate": lists.candidate_object(candidate),
            "model": sources[candidate.label].model,
            "endpoint": sources[candidate.label].endpoint,
            "profile": sources[candidate.label].profile,
        }
        for candidate in candidates
    ]
    content: dict[str, JsonValue] = {
        "schema": SECRET_SCHEMA,
        "lineup_sha256": sha256_hex(commitment),
        "seal": seal_envelope.decode("utf-8"),
        "candidates": items,
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(canonical_bytes(content) + b"\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Custody:
    """A line-up as its custodian holds it."""

    folder: Path
    commitment: bytes
    lineup: LineUp
    seal: Seal
    candidates: tuple[Candidate, ...]
    sources: Mapping[str, Source]


def read_custody(folder: Path) -> Custody:
    """Read the custodian's folder and compare the secret list with the commitment.

    Raises:
        UsageError: a file is missing.
        EvidenceError: a file is broken, or the list is not the committed one.
    """
    commitment, data = read_part(folder, lists.COMMITMENT), read_part(folder, lists.SECRET)
    lineup = lists.open_lineup(commitment)
    fields = Fields(parse_canonical_object(data, what=lists.SECRET), what=lists.SECRET)
    if fields.text("schema") != SECRET_SCHEMA or fields.hex("lineup_sha256") != sha256_hex(commitment):
        raise MalformedError(f"{lists.SECRET}: of another line-up")
    envelope = fields.text("seal", max_length=MAX_LIST_BYTES).encode("utf-8")
    candidates, sources = [], {}
    for item in fields.items("candidates", max_items=lists.MAX_CANDIDATES):
        entry = Fields(item, what=lists.SECRET)
        candidate = lists.candidate_from(entry.raw("candidate"), what=lists.SECRET)
        sources[candidate.label] = Source(
            model=entry.text("model"), endpoint=entry.text("endpoint"), profile=entry.text("profile")
        )
        entry.finish()
        candidates.append(candidate)
    fields.finish()
    if lists.placed_of(candidates) != lineup.placed or sha256_hex(envelope) != lineup.seal_sha256:
        raise SealError(f"{lists.SECRET}: not the list that was committed to")
    return Custody(
        folder=folder,
        commitment=commitment,
        lineup=lineup,
        seal=open_seal(envelope),
        candidates=tuple(candidates),
        sources=sources,
    )


def read_part(folder: Path, name: str, *, required: bool = True) -> bytes:
    """Return a file of a line-up's folder; empty where it may be absent and is.

    Raises:
        UsageError: it is missing or cannot be read.
    """
    path = folder / name
    if not required and not path.exists():
        return b""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({type(error).__name__})") from error


@contextmanager
def relay(custody: Custody, *, interval_s: float) -> "Iterator[Starlette]":
    """Open every candidate and yield the relay that serves them.

    Raises:
        UsageError: the line-up was opened already, or another relay writes the record.
        SealError: a model file is not the committed one.
        SuspectError: a candidate cannot be opened or reached.
    """
    from auditor.lineups.relay import Seat, create_relay

    if (custody.folder / lists.OPENING).exists():
        raise UsageError(f"{custody.folder}: the line-up was opened; nothing more can be asked in it")
    digest = sha256_hex(custody.commitment)
    with ExitStack() as stack:
        seats = []
        for candidate in custody.candidates:
            source = custody.sources[candidate.label]
            suspect = stack.enter_context(source.opened(classes=custody.seal.spec.classes))
            if candidate.artefact_sha256 not in ("", suspect.describe().suspect.artefact_sha256):
                raise SealError(f"candidate {candidate.label}: the model file is not the committed one")
            seats.append(Seat(label=candidate.label, place=candidate.place, suspect=suspect))
        writer = RecordWriter(custody.folder / lists.RECORD, commitment_sha256=digest, clock=casefile.utc_now)
        stack.callback(writer.close)
        yield create_relay(
            seats,
            spec=custody.seal.spec,
            n_outputs=custody.lineup.n_outputs,
            scores=custody.lineup.revealed is Revealed.SCORES,
            record=writer.add,
            interval_s=interval_s,
        )


def open_list(custody: Custody, *, key: SigningKey) -> OpenedLineUp:
    """Sign and write what every leaf hides, with the digest of the relay's record; the line-up is over then.

    Raises:
        UsageError: another key than the one that committed, or it was opened already.
    """
    if key.public.hex() != custody.lineup.custodian_public_key:
        raise UsageError("a line-up is opened with the key that committed to it")
    if (custody.folder / lists.OPENING).exists():
        raise UsageError(f"{custody.folder}: the line-up was opened already")
    if (custody.folder / lists.RECORD).exists():
        drop_torn_line(custody.folder / lists.RECORD)
    record = read_part(custody.folder, lists.RECORD, required=False)
    opened = OpenedLineUp(
        commitment_sha256=sha256_hex(custody.commitment),
        candidates=custody.candidates,
        record_sha256=sha256_hex(record) if record else "",
        custodian_public_key=custody.lineup.custodian_public_key,
        opened_at=utc_text(casefile.utc_now()),
        tool_version=__version__,
    )
    write_new(custody.folder / lists.OPENING, lists.sign_opening(opened, key=key))
    return opened
