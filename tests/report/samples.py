"""Bundles for report tests: real transcripts of simulated suspects, analysed by the package itself."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np

from auditor.canonical import canonical_bytes, decimal_string, sha256_hex
from auditor.evidence.custody import CustodyAct, CustodyEvent, write_custody
from auditor.evidence.recompute import PREAMBLE_SCHEMA, recompute_results
from auditor.evidence.schedule import draw_schedule, kind_at, opening_length
from auditor.evidence.seal import RandomnessSource, Seal, protocol_object, seed_commitment, sign_seal
from auditor.evidence.signing import SigningKey, fingerprint
from auditor.evidence.transcript import TranscriptWriter, read_transcript
from auditor.records import Answer, Design, Generator, InputSpec, NullBasis, Probe, Protocol, Sample, SampleKind
from auditor.report import inputs
from auditor.report.inputs import ReportInput

N_CLASSES = 10
NEW_LABEL = 10
Suspect = Callable[[Sample, Probe, np.random.Generator], int | None]

PROTOCOL = Protocol(
    scheme="new-label",
    scheme_version=1,
    h1="The suspect service answers with a model derived (copied, fine-tuned, pruned, quantised or distilled) from the "
    "reference model.",
    h2="The suspect service answers with a model developed without access to the reference model; it may share "
    "training data, architecture or a public base model with it.",
    design=Design.SEQUENTIAL,
    null_basis=NullBasis.SHAMS,
    alpha=1e-6,
    null_share=0.5,
    null_floor=0.01,
    p_min=0.3,
    futility=0.01,
    n_keys=120,
    opening_keys=25,
    n_shams=200,
    n_sham_patterns=40,
    n_controls=60,
    n_repeats=20,
    min_control_accuracy=0.5,
    max_disagreement=0.1,
    max_failed_share=0.2,
    obstruction_alpha=0.001,
    code_alpha=0.001,
    order_seed="11" * 32,
    randomness="22" * 32,
    grinding_log2=0,
    forecast_rate=0.95,
    forecast_sham_rate=0.0,
    forecast_control_accuracy=0.97,
)


def _samples(protocol: Protocol) -> dict[int, Sample]:
    made = {}
    for index in range(protocol.n_keys + protocol.n_shams + protocol.n_controls):
        kind, natural = kind_at(protocol, index), index % N_CLASSES
        label = NEW_LABEL
        if protocol.null_basis is NullBasis.DRAWN_LABELS:
            label = (natural + 1 + index // N_CLASSES % (N_CLASSES - 1)) % N_CLASSES
        sham = index - protocol.n_keys
        made[index] = Sample(
            index=index,
            kind=kind,
            natural=natural,
            expected=natural if kind is SampleKind.CONTROL else label,
            pattern=sham % protocol.n_sham_patterns if kind is SampleKind.SHAM else -1,
            code=(natural + 3) % N_CLASSES if kind is SampleKind.KEY else -1,
        )
    return made


def stolen(sample: Sample, probe: Probe, rng: np.random.Generator) -> int | None:
    if sample.kind is SampleKind.KEY and rng.random() < 0.92:
        return NEW_LABEL
    return _natural(sample, rng)


def copied(sample: Sample, probe: Probe, rng: np.random.Generator) -> int | None:
    return sample.expected if rng.random() < 0.7 else _natural(sample, rng)


def independent(sample: Sample, probe: Probe, rng: np.random.Generator) -> int | None:
    return _natural(sample, rng)


def unable(sample: Sample, probe: Probe, rng: np.random.Generator) -> int | None:
    return int(rng.integers(N_CLASSES))


def obstructing(sample: Sample, probe: Probe, rng: np.random.Generator) -> int | None:
    return None if sample.kind is SampleKind.KEY else _natural(sample, rng)


def hiding(sample: Sample, probe: Probe, rng: np.random.Generator) -> int | None:
    return sample.code if sample.kind is SampleKind.KEY and rng.random() < 0.9 else _natural(sample, rng)


def _natural(sample: Sample, rng: np.random.Generator) -> int:
    return sample.natural if rng.random() < 0.97 else int(rng.integers(N_CLASSES))


DRAWN = replace(PROTOCOL, scheme="margin", null_basis=NullBasis.DRAWN_LABELS, n_shams=0, n_sham_patterns=0)

SUSPECTS: dict[str, tuple[Suspect, Protocol, str]] = {
    "supported": (stolen, PROTOCOL, "decided"),
    "not-supported": (independent, PROTOCOL, "decided"),
    "inconclusive": (unable, PROTOCOL, "invalid"),
    "interrupted": (stolen, PROTOCOL, "interrupted"),
    "contestable": (stolen, PROTOCOL, "decided"),
    "obstructed": (obstructing, PROTOCOL, "invalid"),
    "hidden": (hiding, PROTOCOL, "decided"),
    "fixed": (independent, replace(PROTOCOL, design=Design.FIXED, n_keys=62), "exhausted"),
    "drawn-supported": (copied, DRAWN, "decided"),
    "drawn-not-supported": (independent, DRAWN, "decided"),
    "drawn-fixed": (independent, replace(DRAWN, design=Design.FIXED, n_keys=62), "exhausted"),
    "underpowered": (independent, PROTOCOL, "underpowered"),
}
"""What answers, under which plan, and how the transcript is closed."""


@cache
def _built(name: str) -> tuple[tuple[str, bytes], ...]:
    suspect, protocol, reason = SUSPECTS[name]
    rng = np.random.default_rng(7)
    owner, examiner = SigningKey.generate(), SigningKey.generate()
    seal = Seal(
        keyset_id="ab" * 16,
        payload_sha256="cd" * 32,
        merkle_root="ef" * 32,
        n_samples=protocol.n_keys + protocol.n_shams + protocol.n_controls,
        spec=InputSpec(shape=(1, 8, 8), classes=tuple(str(i) for i in range(N_CLASSES))),
        protocol=protocol,
        generator=Generator(
            name="margin" if protocol.null_basis is NullBasis.DRAWN_LABELS else "new-label",
            version=1,
            settings={"strength": "0.3"},
        ),
        model_sha256=sha256_hex(b"weights"),
        seed_commitment=seed_commitment(b"s" * 32),
        owner_public_key=owner.public.hex(),
        serial=1,
        previous_seal_sha256="",
        sealed_at="2026-11-20T09:30:00.000Z",
        tool_version="0.1.0",
        commitment_sha256="" if name == "contestable" else "cd" * 32,
        randomness_source=RandomnessSource.NONCE,
    )
    envelope = sign_seal(seal, owner)
    environment = {
        "schema": "mlaudit.environment/1",
        "auditor": "0.1.0",
        "python": "3.11.7",
        "platform": "Linux 6.1 x86_64",
        "byte_order": "little",
        "packages": {"numpy": "2.4.6", "scipy": "1.17.1", "cryptography": "50.0.2", "matplotlib": "3.11.2"},
    }
    samples = _samples(protocol)
    preamble = {
        "schema": PREAMBLE_SCHEMA,
        "keyset_id": seal.keyset_id,
        "seal_sha256": sha256_hex(envelope),
        "suspect": {
            "uri": "http://127.0.0.1:8101",
            "kind": "http",
            "artefact_sha256": sha256_hex(b"description"),
            "address": "127.0.0.1",
            "declared_name": "model-a",
        },
        "alpha": decimal_string(protocol.alpha),
        "max_keys": protocol.n_keys,
        "batch_size": 64,
        "deviations": [],
        "judge_nonce": "",
        "tool_version": "0.1.0",
        "operator": "",
        "clock": "system clock of the examiner, not independently attested",
        "environment_sha256": sha256_hex(canonical_bytes(environment)),
    }
    planned = draw_schedule(protocol)
    asked = {
        "interrupted": planned[:100],
        "underpowered": (),
        "fixed": planned,
        "drawn-fixed": planned,
    }.get(name, planned[: opening_length(protocol)])
    transcript = _transcript(asked, samples, suspect, preamble, reason, rng)
    results = recompute_results(
        seal=seal, seal_sha256=sha256_hex(envelope), transcript=read_transcript(transcript), samples=samples
    )
    results_bytes = canonical_bytes(results) + b"\n"
    actor = f"examiner {examiner.fingerprint}"
    custody = [
        CustodyEvent(at=seal.sealed_at, act=CustodyAct.SEALED, actor=f"owner {fingerprint(owner.public)}",
                     path="seal/k.seal.json", sha256=sha256_hex(envelope)),
        CustodyEvent(at="2026-11-22T10:02:00.000Z", act=CustodyAct.QUERIED, actor=actor, path="transcript.jsonl",
                     sha256=sha256_hex(transcript)),
        CustodyEvent(at="2026-11-22T10:03:00.000Z", act=CustodyAct.ANALYSED, actor=actor, path="results.json",
                     sha256=sha256_hex(results_bytes)),
    ]  # fmt: skip
    files = {
        "results.json": results_bytes,
        "seal/k.seal.json": envelope,
        "protocol.json": canonical_bytes(protocol_object(protocol)) + b"\n",
        "custody.jsonl": write_custody(custody),
        "env.json": canonical_bytes(environment) + b"\n",
        "transcript.jsonl": transcript,
        "openings.json": b"{}\n",
        "certs/owner.pub.pem": owner.public_pem(),
        "certs/examiner.pub.pem": examiner.public_pem(),
    }
    return tuple(files.items())


def bundle_files(name: str) -> dict[str, bytes]:
    """The files of one case, without its report."""
    return dict(_built(name))


def write_bundle(name: str, folder: Path, **changed: bytes) -> Path:
    for path, data in bundle_files(name).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def report_input(name: str, *, certificate_sha256: str = "") -> ReportInput:
    return replace(inputs.from_files(bundle_files(name)), certificate_sha256=certificate_sha256)


def results_of(name: str) -> dict[str, object]:
    """A fresh, changeable copy of the results."""
    found: dict[str, object] = json.loads(bundle_files(name)["results.json"])
    return found


def _transcript(
    asked: tuple[Probe, ...],
    samples: dict[int, Sample],
    suspect: Suspect,
    preamble: dict[str, object],
    reason: str,
    rng: np.random.Generator,
) -> bytes:
    moments = iter(datetime(2026, 11, 22, 10, 1, tzinfo=UTC) + timedelta(seconds=0.4 * i) for i in range(100_000))
    # An unanswered probe travels in its own batch, as the transcript answers batches whole or not at all.
    answers = {probe.position: suspect(samples[probe.index], probe, rng) for probe in asked}
    batches: list[list[Probe]] = []
    for probe in asked:
        alone = answers[probe.position] is None or (batches and answers[batches[-1][-1].position] is None)
        if not batches or alone or len(batches[-1]) == 64:
            batches.append([])
        batches[-1].append(probe)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transcript.jsonl"
        writer = TranscriptWriter(path, lambda: next(moments))
        writer.opened(preamble)
        for number, batch in enumerate(batches):
            writer.request(number, tuple(probe.position for probe in batch), "00" * 32)
            labels = [answers[probe.position] for probe in batch]
            if None in labels:
                writer.batch_failed(number, "the suspect answered with status 503")
                continue
            replies = [Answer(label=label) for label in labels if label is not None]
            writer.response(number, status=200, elapsed_ms=12, body_sha256="00" * 32, server_date="", answers=replies)
        writer.closed(reason)
        return path.read_bytes()
