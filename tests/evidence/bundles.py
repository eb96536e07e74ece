"""A complete small bundle made by the package's own code against a suspect that is a table; shared by tests."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import protocols

from auditor.canonical import canonical_bytes, decimal_string, sha256_hex
from auditor.evidence import bundle as bundle_files
from auditor.evidence.keyset import KeySet, OpenedKeySet, pack
from auditor.evidence.recompute import PREAMBLE_SCHEMA, recompute_results
from auditor.evidence.schedule import draw_schedule, opening_length
from auditor.evidence.seal import RandomnessSource, Seal, seed_commitment, sign_seal
from auditor.evidence.signing import SigningKey
from auditor.evidence.transcript import DOMAIN, TranscriptWriter, read_transcript
from auditor.records import Answer, Generator, Protocol, SampleKind

START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
ENVIRONMENT = {"schema": "mlaudit.environment/1", "python": "3.11"}
SMALL = {"n_keys": 8, "opening_keys": 4, "n_shams": 6, "n_sham_patterns": 3, "n_controls": 4, "n_repeats": 2}


class Clock:
    """A clock that moves one second per look."""

    def __init__(self, start: datetime = START) -> None:
        self.now = start

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@dataclass(frozen=True)
class Made:
    """A bundle with the secrets of those who made it."""

    folder: Path
    opened: OpenedKeySet
    owner: SigningKey
    examiner: SigningKey

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


def small_protocol(**changes) -> Protocol:
    return protocols.a_protocol(**(SMALL | changes))


def a_keyset(protocol: Protocol | None = None, *, seed: int = 0, spec=protocols.SPEC) -> KeySet:
    protocol = protocol or small_protocol()
    samples = tuple(protocols.samples_of(protocol, n_classes=len(spec.classes)).values())
    rng = np.random.default_rng(seed)
    return KeySet(
        keyset_id="0123456789abcdef" * 2,
        spec=spec,
        samples=samples,
        inputs=rng.integers(0, 256, size=(len(samples), *spec.shape), dtype=np.uint8),
        salt_seed=hashlib.sha256(b"salt").digest(),
        generator=Generator(name="new-label", version=1, settings={"beta": "0.5", "grid": 255}),
        secret_seed=hashlib.sha256(b"secret").digest(),
    )


def a_seal(keys: KeySet, owner: SigningKey, protocol: Protocol | None = None, **changes) -> Seal:
    values = {
        "keyset_id": keys.keyset_id,
        "payload_sha256": sha256_hex(pack(keys)),
        "merkle_root": keys.root().hex(),
        "n_samples": len(keys.samples),
        "spec": keys.spec,
        "protocol": protocol or small_protocol(),
        "generator": keys.generator,
        "model_sha256": "ab" * 32,
        "seed_commitment": seed_commitment(keys.secret_seed),
        "owner_public_key": owner.public.hex(),
        "serial": 1,
        "previous_seal_sha256": "",
        "sealed_at": "2026-11-01T08:00:00.000Z",
        "tool_version": "1.0.0",
        "commitment_sha256": "cd" * 32,
        "randomness_source": RandomnessSource.NONCE,
    }
    return Seal(**(values | changes))


def an_opened_keyset(owner: SigningKey, protocol: Protocol | None = None, *, spec=protocols.SPEC) -> OpenedKeySet:
    keys = a_keyset(protocol, spec=spec)
    seal = a_seal(keys, owner, protocol)
    return OpenedKeySet(keys=keys, seal=seal, envelope=sign_seal(seal, owner))


def table_answer(sample, *, stolen: bool) -> Answer:
    """Answer like the owner's model (or like an innocent one) with scores, from the sealed metadata."""
    label = sample.expected if stolen and sample.kind is not SampleKind.SHAM else sample.natural
    scores = [0.01] * 5
    scores[label] = 0.96
    return Answer(label=label, scores=tuple(scores))


def ask_table(folder: Path, opened: OpenedKeySet, clock: Clock, *, stolen: bool, batch_size: int, n_asked: int) -> None:
    """Write a transcript of the first ``n_asked`` questions; the second batch fails."""
    schedule = draw_schedule(opened.seal.protocol)[:n_asked]
    writer = TranscriptWriter(folder / "transcript.jsonl", clock)
    writer.opened(
        {
            "schema": PREAMBLE_SCHEMA,
            "keyset_id": opened.seal.keyset_id,
            "seal_sha256": sha256_hex(opened.envelope),
            "suspect": {
                "uri": "http://127.0.0.1:8101",
                "kind": "http",
                "artefact_sha256": "",
                "address": "127.0.0.1",
                "declared_name": "table",
            },
            "alpha": decimal_string(opened.seal.protocol.alpha),
            "max_keys": opened.seal.protocol.n_keys,
            "batch_size": batch_size,
            "deviations": [],
            "judge_nonce": "",
            "tool_version": "1.0.0",
            "operator": "",
            "clock": "test",
            "environment_sha256": sha256_hex(canonical_bytes(ENVIRONMENT) + b"\n"),
        }
    )
    for number, start in enumerate(range(0, len(schedule), batch_size)):
        batch = schedule[start : start + batch_size]
        inputs = opened.keys.inputs[[probe.index for probe in batch]]
        writer.request(number, tuple(probe.position for probe in batch), sha256_hex(inputs.tobytes()))
        if number == 1:
            writer.attempt_failed(number, "503", 500)
            writer.batch_failed(number, "503 twice")
            continue
        answers = [table_answer(opened.keys.samples[probe.index], stolen=stolen) for probe in batch]
        raw = json.dumps({"answers": [{"label": a.label, "scores": a.scores} for a in answers]}).encode()
        writer.response(
            number,
            status=200,
            elapsed_ms=7,
            body_sha256=bundle_files.store_raw(folder, raw),
            server_date="Sun, 22 Nov 2026 10:00:00 GMT",
            answers=answers,
        )
    writer.closed("decided")


def make_bundle(
    folder: Path,
    *,
    protocol: Protocol | None = None,
    spec=protocols.SPEC,
    stolen: bool = True,
    batch_size: int = 8,
    n_asked: int | None = None,
    report: bytes | None = b"<!doctype html><title>report</title>\n",
    stamp: bundle_files.Stamp = bundle_files.no_stamp,
    stamp_seal: bundle_files.Stamp = bundle_files.no_stamp,
) -> Made:
    """Make a finished, signed bundle in ``folder``.

    Args:
        folder: a folder that does not exist yet.
        protocol: the sealed protocol; a small one by default.
        spec: input shape and classes of the key set.
        stolen: whether the suspect answers like the owner's model.
        batch_size: questions per batch; the second batch stays without an answer.
        n_asked: number of questions; stage 1 by default.
        report: bytes of ``report.html``, or None for a bundle without a report.
        stamp: time-stamps transcript head and manifest.
        stamp_seal: time-stamps the seal.
    """
    protocol = protocol or small_protocol()
    owner, examiner, clock = SigningKey.generate(), SigningKey.generate(), Clock()
    opened = an_opened_keyset(owner, protocol, spec=spec)
    tokens = stamp_seal(opened.envelope)
    bundle_files.create(folder, seal_envelope=opened.envelope, environment=ENVIRONMENT, seal_tokens=tokens)
    n_asked = opening_length(protocol) if n_asked is None else n_asked
    ask_table(folder, opened, clock, stolen=stolen, batch_size=batch_size, n_asked=n_asked)
    bundle_files.write_head(folder, examiner=examiner, clock=clock, stamp=stamp)
    samples = {sample.index: sample for sample in opened.keys.samples}
    transcript = read_transcript((folder / "transcript.jsonl").read_bytes())
    results = recompute_results(
        seal=opened.seal,
        seal_sha256=sha256_hex(opened.envelope),
        transcript=transcript,
        samples=samples,
        data={index: opened.keys.data(index) for index in samples},
    )
    asked = [probe.index for probe in draw_schedule(protocol)[:n_asked]]
    bundle_files.write_findings(
        folder,
        opened=opened,
        asked=asked,
        queried_at=transcript.closed_at,
        results=results,
        clock=clock,
        examiner=examiner,
    )
    if report is not None:
        (folder / "report.html").write_bytes(report)
    bundle_files.write_manifest(folder, examiner=examiner, clock=clock, stamp=stamp)
    return Made(folder=folder, opened=opened, owner=owner, examiner=examiner)


def rechained(lines: list[dict]) -> bytes:
    """Return lines as a transcript whose numbers and chain are right, whatever they say."""
    out, previous = [], b""
    for number, line in enumerate(lines):
        value = {**line, "seq": number, "prev": hashlib.sha256(DOMAIN + previous).hexdigest()}
        previous = canonical_bytes(value)
        out.append(previous + b"\n")
    return b"".join(out)


def content(data: bytes) -> list[dict]:
    """Return the lines of a transcript as objects."""
    return [json.loads(line) for line in data.splitlines()]
