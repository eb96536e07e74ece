"""From a transcript back to the results: the one path that ``verify`` writes through and ``check`` repeats."""

from collections.abc import Mapping

from auditor.canonical import Fields, JsonValue
from auditor.errors import TranscriptError
from auditor.evidence.schedule import draw_schedule
from auditor.evidence.seal import Seal
from auditor.evidence.signing import fingerprint
from auditor.evidence.transcript import Transcript
from auditor.records import Probe, Reply, Sample, SuspectId
from auditor.results import analyse

PREAMBLE_SCHEMA = "mlaudit.preamble/1"


def recompute_results(
    *, seal: Seal, seal_sha256: str, transcript: Transcript, samples: Mapping[int, Sample]
) -> dict[str, JsonValue]:
    """Return the results object that follows from the seal and the raw answers.

    Args:
        seal: the opened seal.
        seal_sha256: digest of the seal's envelope bytes.
        transcript: the transcript, its chain already verified.
        samples: sealed metadata of at least every asked sample, already compared with the sealed root.

    Raises:
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
    max_keys = fields.integer("max_keys", low=1, high=seal.protocol.n_keys)
    deviations = fields.texts("deviations")
    suspect = _suspect(fields.object("suspect"))
    fields.finish()
    if keyset_id != seal.keyset_id or sealed_in != seal_sha256:
        raise TranscriptError("the transcript was recorded for another seal")
    if alpha <= 0:
        raise TranscriptError("the transcript states an empty level")
    return analyse(
        protocol=seal.protocol,
        spec=seal.spec,
        keyset=keyset_section(seal, seal_sha256),
        suspect=suspect,
        samples=samples,
        replies=issued_replies(transcript, draw_schedule(seal.protocol), max_keys=max_keys),
        alpha=alpha,
        max_keys=max_keys,
        closed_reason=transcript.closed_reason or "interrupted",
        deviations=deviations,
    )


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
    }


def _suspect(fields: Fields) -> SuspectId:
    suspect = SuspectId(
        uri=fields.text("uri"),
        kind=fields.text("kind"),
        artefact_sha256=fields.text("artefact_sha256"),
        address=fields.text("address"),
        declared_name=fields.text("declared_name"),
    )
    fields.finish()
    return suspect
