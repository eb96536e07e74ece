"""A small protocol and suspects made of tables, shared by tests."""

import dataclasses

from auditor.records import Answer, Design, InputSpec, NullBasis, Probe, Protocol, Reply, Sample, SampleKind, SuspectId

SPEC = InputSpec(shape=(1, 2, 2), classes=("a", "b", "c", "d"))
SUSPECT = SuspectId(uri="http://127.0.0.1:1", kind="http", artefact_sha256="", address="127.0.0.1", declared_name="x")
KEYSET = {"id": "00" * 16, "seal_sha256": "11" * 32}
NEW_LABEL = 4


def a_protocol(**changes) -> Protocol:
    protocol = Protocol(
        scheme="new-label",
        scheme_version=1,
        h1="h1",
        h2="h2",
        design=Design.SEQUENTIAL,
        null_basis=NullBasis.SHAMS,
        alpha=1e-6,
        null_share=0.5,
        null_floor=0.01,
        p_min=0.3,
        futility=0.01,
        n_keys=60,
        opening_keys=20,
        n_shams=200,
        n_sham_patterns=40,
        n_controls=40,
        n_repeats=20,
        min_control_accuracy=0.5,
        max_disagreement=0.1,
        max_failed_share=0.1,
        obstruction_alpha=1e-3,
        code_alpha=1e-3,
        order_seed="07" * 32,
        randomness="22" * 32,
        grinding_log2=0,
        forecast_rate=0.9,
        forecast_sham_rate=0.0,
        forecast_control_accuracy=0.95,
    )
    return dataclasses.replace(protocol, **changes)


def samples_of(protocol: Protocol, *, code: bool = False, n_classes: int = 4) -> dict[int, Sample]:
    samples = []
    new_label = n_classes
    for index in range(protocol.n_keys + protocol.n_shams + protocol.n_controls):
        natural = index % n_classes
        if index < protocol.n_keys:
            kind, expected, pattern, coded = SampleKind.KEY, new_label, -1, (natural + 1) % n_classes if code else -1
        elif index < protocol.n_keys + protocol.n_shams:
            kind, expected, coded = SampleKind.SHAM, new_label, -1
            pattern = (index - protocol.n_keys) * protocol.n_sham_patterns // protocol.n_shams
        else:
            kind, expected, pattern, coded = SampleKind.CONTROL, natural, -1, -1
        samples.append(Sample(index=index, kind=kind, natural=natural, expected=expected, pattern=pattern, code=coded))
    return {sample.index: sample for sample in samples}


def reply(sample: Sample, label: int | None, *, position: int = 0, repeat: bool = False) -> Reply:
    probe = Probe(position=position, index=sample.index, kind=sample.kind, repeat=repeat)
    return Reply(probe=probe, answer=None if label is None else Answer(label=label))
