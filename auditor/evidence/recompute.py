"""From a transcript back to the results: the one path that ``verify`` writes through and ``check`` repeats."""

from collections.abc import Mapping
from dataclasses import asdict

from auditor.canonical import Fields, JsonValue, parse_canonical_object
from auditor.errors import EvidenceError, TranscriptError
from auditor.evidence.calibration import FIELD as CALIBRATION
from auditor.evidence.calibration import LabelSpace, calibration_of, label_space
from auditor.evidence.opened_table import open_table
from auditor.evidence.panel import Panel, panel_from
from auditor.evidence.schedule import draw_schedule, judge_seed
from auditor.evidence.screen import screen_section
from auditor.evidence.seal import Seal, claim_problem
from auditor.evidence.signing import fingerprint
from auditor.evidence.transcript import Stop, Transcript
from auditor.records import Probe, Reply, Sample, SuspectId
from auditor.results import analyse
from auditor.stats.likelihood import band

PREAMBLE_SCHEMA = "mlaudit.preamble/1"
MAX_FAMILY = 1_000_000


def recompute_results(
    *,
    seal: Seal,
    seal_sha256: str,
    transcript: Transcript,
    samples: Mapping[int, Sample],
    guard: bytes = b"",
    data: Mapping[int, bytes] | None = None,
) -> dict[str, JsonValue]:
    """Return the results object that follows from the seal and the raw answers.

    Args:
        seal: the opened seal.
        seal_sha256: digest of the seal's envelope bytes.
        transcript: the transcript, its chain already verified.
        samples: sealed metadata of at least every asked sample, already compared with the sealed root.
        guard: bytes of ``guard.json`` where the null basis is a drawn table, else empty.
        data: uint8 values of at least every asked sample; needed with a guard, and for the detectability of the keys.

    Raises:
        SealError: the guard is not the sealed one.
        TranscriptError: the transcript belongs to another seal, loosens the sealed plan, or asked in another order.
        MalformedError: the preamble has missing or unknown fields.
    """
    fields = Fields(transcript.preamble, what="transcript preamble")
    if fields.text("schema") != PREAMBLE_SCHEMA:
        raise TranscriptError("the transcript's preamble has an unknown schema")
    fields.hex("environment_sha256", n_bytes=32)
    for name in ("operator", "clock", "tool_version"):
        fields.text(name)
    fields.integer("batch_size", low=1)
    keyset_id = fields.hex("keyset_id", n_bytes=16)
    sealed_in = fields.hex("seal_sha256", n_bytes=32)
    alpha = fields.decimal("alpha", low=0.0, high=seal.protocol.alpha)
    max_keys = fields.integer("max_keys", low=1, high=seal.protocol.n_asked)
    deviations = fields.texts("deviations")
    fields.hex("judge_nonce")
    suspect = _suspect(fields.raw("suspect"))
    declared = fields.integer("family", low=1, high=MAX_FAMILY) if "family" in transcript.preamble else 1
    panel = panel_of(transcript, seal=seal)
    if panel is not None:
        fields.raw("panel")
    space = label_space_of(transcript, seal=seal)
    if space is not None:
        fields.raw(CALIBRATION)
    fields.finish()
    if keyset_id != seal.keyset_id or sealed_in != seal_sha256:
        raise TranscriptError("the transcript was recorded for another seal")
    if not all(same_suspect(asdict(suspect), resumption.suspect) for resumption in transcript.resumptions):
        raise TranscriptError("the audit was resumed against another suspect")
    if alpha <= 0:
        raise TranscriptError("the transcript states an empty level")
    issued = issued_replies(transcript, planned_probes(seal, transcript), max_keys=max_keys)
    results = analyse(
        protocol=seal.protocol,
        spec=seal.spec,
        keyset=keyset_section(seal, seal_sha256),
        suspect=suspect,
        samples=samples,
        replies=issued,
        alpha=alpha,
        max_keys=max_keys,
        closed_reason=transcript.closed_reason or "interrupted",
        deviations=(*deviations, *resumption_deviations(transcript)),
        contestable=bool(claim_problem(seal)),
        panel=() if panel is None else panel.members,
        family=max(declared, seal.serial),
        serial=seal.serial,
        table=open_table(guard, seal=seal, data=data or {}),
        claimed=None if space is None else space.claimed,
        labels_unclear=space is not None and space.unclear,
    )
    results["screen"] = screen_section(seal, asked=issued, data=data or {})
    return results if space is None else {**results, CALIBRATION: space.as_json(seal.spec.classes)}


def label_space_of(transcript: Transcript, *, seal: Seal) -> LabelSpace | None:
    """Return what the recorded calibration says about the suspect's labels; None where there was none.

    Raises:
        MalformedError: the record cannot be read.
        TranscriptError: the recorded map does not follow from it.
    """
    n_classes = len(seal.spec.classes)
    found = calibration_of(transcript.preamble, n_classes=n_classes)
    return None if found is None else label_space(found, n_classes=n_classes, protocol=seal.protocol)


def panel_of(transcript: Transcript, *, seal: Seal) -> Panel | None:
    """Return the panel that the preamble records; None where the audit used none.

    Raises:
        MalformedError: the record cannot be read.
        SealError: it was made with another key set.
        TranscriptError: the suspect or the owner's model is a member.
    """
    if "panel" not in transcript.preamble:
        return None
    panel = panel_from(transcript.preamble["panel"], seal=seal)
    suspect = transcript.preamble.get("suspect")
    artefact = suspect.get("artefact_sha256") if isinstance(suspect, Mapping) else None
    if {artefact, seal.model_sha256} & {model.weights_sha256 for model in panel.models}:
        raise TranscriptError("the suspect or the owner's model is a member of the panel")
    return panel


def same_suspect(begun: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> bool:
    """Return whether two descriptions are of one suspect; services change their network addresses."""
    return {**begun, "address": ""} == {**now, "address": ""}


def resumption_deviations(transcript: Transcript) -> tuple[str, ...]:
    """Return what every stop and resumption is told as among the departures from the sealed plan."""
    told = []
    for number, stop in enumerate(transcript.resumptions, start=1):
        how = {
            Stop.UNCLOSED: "the record had ended without a closing line",
            Stop.INTERRUPTED: "the user had interrupted it",
            Stop.FAILED: "the suspect had stopped answering",
        }[stop.stop]
        again = f"; {stop.n_retried} without an answer on record asked again" if stop.n_retried else ""
        told.append(
            f"the audit was resumed at {stop.at} ({number} of {len(transcript.resumptions)}): {how}; "
            f"{stop.n_answered_before} of {stop.n_batches_before} batches had been answered{again}"
        )
    return tuple(told)


def judge_nonce(transcript: Transcript) -> bytes:
    """Return the judge's nonce that the preamble records; empty when there was none.

    Raises:
        TranscriptError: the preamble holds none of either kind.
    """
    value = transcript.preamble.get("judge_nonce")
    try:
        return bytes.fromhex(value) if isinstance(value, str) else bytes.fromhex("-")
    except ValueError as error:
        raise TranscriptError("the preamble's judge's nonce cannot be read") from error


def planned_probes(seal: Seal, transcript: Transcript) -> tuple[Probe, ...]:
    """Return every planned probe in the order drawn from the judge's nonce, or else from the sealed seed."""
    nonce = judge_nonce(transcript)
    return draw_schedule(seal.protocol, judge=judge_seed(nonce, seal.merkle_root) if nonce else None)


def issued_replies(transcript: Transcript, planned: tuple[Probe, ...], *, max_keys: int) -> tuple[Reply, ...]:
    """Return every issued probe with its answer; a batch without a response counts as asked and unanswered.

    Raises:
        TranscriptError: the positions asked are not the drawn order's beginning, or exceed the permitted keys.
    """
    replies: list[Reply] = []
    for batch in transcript.batches:
        answers = batch.answers
        for offset, position in enumerate(batch.positions):
            if position != len(replies) or position >= len(planned):
                raise TranscriptError("the questions were not asked in the drawn order")
            answer = None if answers is None else answers[offset]
            replies.append(Reply(probe=planned[position], answer=answer))
    if sum(reply.probe.kind == "key" and not reply.probe.repeat for reply in replies) > max_keys:
        raise TranscriptError("more keys were asked than the plan permits")
    return tuple(replies)


def keyset_section(seal: Seal, seal_sha256: str) -> dict[str, JsonValue]:
    """Return the part of the results that says which sealed key set was used."""
    return {
        "id": seal.keyset_id,
        "seal_sha256": seal_sha256,
        "owner_fingerprint": fingerprint(bytes.fromhex(seal.owner_public_key)),
        "model_sha256": seal.model_sha256,
        "sealed_at": seal.sealed_at,
        "serial": seal.serial,
        "n_keys": seal.protocol.n_keys,
        "randomness": seal.protocol.randomness,
        "randomness_source": seal.randomness_source.value,
        "commitment_sha256": seal.commitment_sha256,
        "generation": claim_problem(seal) or "can be derived again by whoever holds the key set",
    }


def first_difference(stored: bytes, results: Mapping[str, JsonValue]) -> str:
    """Name the first section in which stored results differ, for a person who looks for the cause."""
    try:
        found = parse_canonical_object(stored, what="results.json")
    except EvidenceError:
        return ""
    different = [name for name in sorted({*found, *results}) if found.get(name) != results.get(name)]
    return f", first in section {different[0][:40]!r}" if different else ""


def check_opinion(opinion: JsonValue) -> str:
    """Return what an opinion rests on.

    Raises:
        TranscriptError: its words do not follow from its number.
    """
    if not isinstance(opinion, Mapping) or opinion.get("lr") is None:
        if isinstance(opinion, Mapping) and opinion.get("band") is None:
            return "no likelihood ratio is reported and no strength is claimed"
        raise TranscriptError("the opinion claims a strength without a number")
    lr = Fields(opinion, what="results.json").decimal("lr", low=0.0)
    if band(lr).words != opinion.get("band"):
        raise TranscriptError("the opinion's words do not follow from its number")
    return f"likelihood ratio {lr:.4g}: {band(lr).words}"


def _suspect(recorded: JsonValue) -> SuspectId:
    fields = Fields(recorded, what="transcript preamble.suspect")

    def later(name: str) -> str:
        """Return a field that earlier versions did not record; empty where it is absent."""
        present = isinstance(recorded, Mapping) and name in recorded
        return fields.text(name, max_length=1 << 22) if present else ""

    suspect = SuspectId(
        uri=fields.text("uri"),
        kind=fields.text("kind"),
        artefact_sha256=fields.text("artefact_sha256"),
        address=fields.text("address"),
        declared_name=fields.text("declared_name"),
        profile=later("profile"),
        profile_sha256=later("profile_sha256"),
        reading=later("reading"),
        certificate_sha256=later("certificate_sha256"),
        account=later("account"),
    )
    fields.finish()
    return suspect
