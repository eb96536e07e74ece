"""Every file of a bundle × every way to tamper with it: which step of the re-check fails first.

Each row of the table is one file, each column one way. A cell names the title of the first failing step, or starts
with "undetectable:" and says why nothing can fail. Nobody signs anything again in the first four columns; in the
last three the examiner, who holds the key, signs manifest and claims again after the change.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import authorities
import bundles
import pytest
import tampering
from tampering import (
    COSIGNATURE,
    HEAD_TOKEN,
    ISSUED,
    LATER_LOG,
    MANIFEST_TOKEN,
    PAGE,
    SEAL_TOKEN,
    SUPERSEDED,
    WITNESS,
    Made,
)

from auditor.errors import EvidenceError
from auditor.evidence.bundle_folder import all_files
from auditor.evidence.check import CheckOutcome, CheckReport, check_bundle
from auditor.evidence.manifest import GUARD, PLACES
from auditor.evidence.seal import sign_seal
from auditor.evidence.signing import SigningKey, envelope

RAW = "raw/*"
MANIFEST, SIGNATURES, TIME, SEAL = (
    "manifest and file digests",
    "signatures",
    "trusted time",
    "seal, openings and protocol",
)
CONTAINER, TRANSCRIPT, RAW_ANSWERS, QUESTIONS = (
    "container limits", "transcript", "raw answers read again", "order of the questions",
)  # fmt: skip
CUSTODY, RESULTS, HTML, KEYS = (
    "times, custody, environment", "results recomputed", "report.html rendered again", "expected keys",
)  # fmt: skip
FURTHER, LATER, DECLARED = "further signatures", "custody after signing", "declarations and issued reports"
NO_TOKEN = "undetectable: a time stamp is optional; without it the step is NOT CHECKED, never PASS"
TEXT = "undetectable: instructions to people, which no number rests on; signed by the examiner alone"
NO_REPORT = "undetectable: a report is optional; without it its step is NOT CHECKED, never PASS"
WITH_PDF = "undetectable: only the PDF's own check sees this; test_tamper_pdf.py has its cells"
OPTIONAL = "undetectable: the examiner need not have been given one"
DRAWN = "undetectable: only rendering again sees this; test_declared_report.py has its cells"
SET_ASIDE = "undetectable: set aside by the examiner alone; heads among these are compared in test_superseded.py"
SAME = "same"
"""Leaves the bundle as it was: the file is equal in both bundles, or signing makes it again."""

COLUMNS = ("changed", "removed", "emptied", "swapped", "changed, signed", "removed, signed", "swapped, signed")
PLAIN = (MANIFEST,) * 4
"""Whoever cannot sign is caught by the digests, whatever the file."""
TABLE: dict[str, tuple[str, ...]] = {
    "seal/k.seal.json": (*PLAIN, SIGNATURES, MANIFEST, SIGNATURES),
    "openings.json": (*PLAIN, SEAL, MANIFEST, SEAL),
    "protocol.json": (*PLAIN, SEAL, MANIFEST, SEAL),
    "transcript.jsonl": (*PLAIN, TIME, MANIFEST, TRANSCRIPT),
    "transcript.head.dsse.json": (*PLAIN, SIGNATURES, MANIFEST, SIGNATURES),
    "results.json": (*PLAIN, CUSTODY, MANIFEST, CUSTODY),
    "custody.jsonl": (*PLAIN, CUSTODY, MANIFEST, CUSTODY),
    "env.json": (MANIFEST, MANIFEST, MANIFEST, SAME, CUSTODY, MANIFEST, SAME),
    "certs/owner.pub.pem": (*PLAIN, SIGNATURES, MANIFEST, SIGNATURES),
    "certs/examiner.pub.pem": (*PLAIN, SIGNATURES, MANIFEST, SIGNATURES),
    "certs/report.crt.pem": (*PLAIN, WITH_PDF, NO_REPORT, WITH_PDF),
    "CHECK.txt": (*PLAIN, TEXT, MANIFEST, TEXT),
    "report.html": (*PLAIN, HTML, NO_REPORT, HTML),
    "report.pdf": (*PLAIN, WITH_PDF, NO_REPORT, WITH_PDF),
    SEAL_TOKEN: (*PLAIN, TIME, NO_TOKEN, TIME),
    HEAD_TOKEN: (*PLAIN, TIME, NO_TOKEN, TIME),
    RAW: (*PLAIN, TRANSCRIPT, TRANSCRIPT, TRANSCRIPT),
    "manifest.json": (MANIFEST, MANIFEST, MANIFEST, MANIFEST, SAME, SAME, SAME),
    "manifest.dsse.json": (SIGNATURES, MANIFEST, SIGNATURES, SIGNATURES, SAME, SAME, SAME),
    MANIFEST_TOKEN: (TIME, LATER, TIME, TIME, SAME, SAME, SAME),
    "seal/k.custody.jsonl": (*PLAIN, CUSTODY, OPTIONAL, CUSTODY),
    "declarations.json": (*PLAIN, DECLARED, OPTIONAL, DRAWN),
    "annexes/certificate-902.draft.html": (*PLAIN, DRAWN, NO_REPORT, DRAWN),
    "annexes/fre-702.html": (*PLAIN, DRAWN, NO_REPORT, DRAWN),
    SUPERSEDED: (*PLAIN, SET_ASIDE, SET_ASIDE, SET_ASIDE),
    LATER_LOG: (LATER, LATER, LATER, LATER, SAME, SAME, SAME),
    COSIGNATURE: (FURTHER, FURTHER, FURTHER, FURTHER, SAME, SAME, SAME),
    **dict.fromkeys(ISSUED, (LATER, LATER, LATER, LATER, SAME, SAME, SAME)),
}  # fmt: skip
CELLS = [
    pytest.param(path, column, expected, id=f"{path}-{column}")
    for path, row in TABLE.items()
    for column, expected in zip(COLUMNS, row, strict=True)
    if expected != SAME
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return authorities.Authority(tmp_path_factory.mktemp("tsa"), start=bundles.START - timedelta(days=30))


@pytest.fixture(scope="module")
def original(tmp_path_factory, authority):
    return tampering.complete_bundle(tmp_path_factory.mktemp("matrix") / "bundle", authority, pdf=False)


@pytest.fixture(scope="module")
def another(tmp_path_factory, authority):
    return tampering.complete_bundle(tmp_path_factory.mktemp("other") / "bundle", authority, pdf=False, other=True)


@pytest.fixture
def made(original, tmp_path):
    shutil.copytree(original.folder, tmp_path / "bundle")
    return dataclasses.replace(original, folder=tmp_path / "bundle")


def check(
    made: Made, authority: authorities.Authority, *, known: Made | None = None, witnesses=(WITNESS.fingerprint,)
) -> CheckReport:
    """Re-check as a judge who knows both parties' keys and the authority's root."""
    known = known or made
    return check_bundle(
        made.folder,
        owner_fingerprint=known.owner.fingerprint,
        examiner_fingerprint=known.examiner.fingerprint,
        render_html=lambda bundle: PAGE,
        check_pdf=None,
        tsa_roots=authority.roots,
        witness_fingerprints=witnesses,
    )


def first_failure(report: CheckReport) -> str:
    return next((step.title for step in report.steps if step.outcome is CheckOutcome.FAIL), "none")


def place(folder: Path, path: str) -> Path:
    if path != RAW:
        return folder / path
    return min(folder.joinpath("raw").iterdir())


def tamper(made: Made, another: Made, path: str, how: str) -> None:
    target = place(made.folder, path)
    if how == "changed":
        tampering.flip(target)
    elif how == "removed":
        target.unlink()
    elif how == "emptied":
        target.write_bytes(b"")
    else:
        source = place(another.folder, path)
        data = source.read_bytes()
        if path == RAW:
            target.unlink()
            target = made.folder / "raw" / source.name
        target.write_bytes(data)


def rename_raw(made: Made) -> None:
    """Raw bodies are named by their digests; a changed one gets the name it deserves."""
    from auditor.canonical import sha256_hex

    for path in sorted(made.folder.joinpath("raw").iterdir()):
        path.rename(path.with_name(sha256_hex(path.read_bytes())))


def test_the_untouched_bundle_passes(made, authority):
    report = check(made, authority)
    assert report.intact
    passed = {step.title for step in report.steps if step.outcome is CheckOutcome.PASS}
    assert passed >= {CONTAINER, MANIFEST, SIGNATURES, KEYS, TIME, SEAL, TRANSCRIPT, RAW_ANSWERS, QUESTIONS, CUSTODY,
                      RESULTS, HTML, FURTHER, LATER}  # fmt: skip


def test_the_table_has_a_row_for_every_file(original):
    present = set(all_files(original.folder))
    assert set(TABLE) == {path for path in present if not path.startswith("raw/")} | {RAW}
    # The guard of a served mark has its cells in test_guarded_service.py.
    assert set(PLACES) <= set(TABLE) | {GUARD}


@pytest.mark.parametrize(("path", "column", "expected"), CELLS)
def test_cell(made, another, authority, path, column, expected):
    how, _, signed = column.partition(", ")
    tamper(made, another, path, how)
    try:
        if signed:
            rename_raw(made)
            tampering.sign_again(made)
            tampering.stamp_manifest(made, authority)
    finally:
        # An examiner who signs again loses the witness, which a test of its own shows.
        report = check(made, authority, witnesses=() if signed else (WITNESS.fingerprint,))
    if expected.startswith("undetectable: "):
        assert report.intact, first_failure(report)
        if expected == NO_TOKEN:
            (step,) = (step for step in report.steps if step.title == TIME)
            assert step.outcome is CheckOutcome.NOT_CHECKED
    else:
        assert first_failure(report) == expected


@pytest.mark.parametrize("path", [path for path, row in TABLE.items() if row[-1] != SAME])
@pytest.mark.parametrize("how", ["changed", "swapped"])
def test_a_stranger_who_signs_everything_again_is_never_taken_for_the_examiner(
    made, original, another, authority, path, how
):
    tamper(made, another, path, how)
    rename_raw(made)
    try:
        posing = tampering.all_signed_by(made, SigningKey.generate())
    except (EvidenceError, ValueError):
        # What is broken this badly the package's own code does not sign; the stranger does it by hand.
        posing = dataclasses.replace(made, examiner=SigningKey.generate())
        (made.folder / "certs/examiner.pub.pem").write_bytes(posing.examiner.public_pem())
        tampering.sign_again(posing)
    report = check(posing, authority, known=original)
    assert first_failure(report) in (SIGNATURES, KEYS)


def strip(made: Made, path: str) -> None:
    tampering.rewrite_json(made.folder / path, lambda value: value.update(signatures=[]))


def sign_by_stranger(made: Made, path: str) -> None:
    import base64

    from auditor.evidence.signing import read_envelope

    found = read_envelope((made.folder / path).read_bytes(), what=path)
    payload_type = json.loads((made.folder / path).read_bytes())["payloadType"]
    signed = envelope(found.payload, payload_type=payload_type, keys=[SigningKey.generate()])
    assert base64.b64encode(found.payload) in signed
    (made.folder / path).write_bytes(signed)


def swap_seal_of_same_owner(made: Made) -> None:
    later = dataclasses.replace(made.opened.seal, protocol=dataclasses.replace(made.opened.seal.protocol, alpha=5e-4))
    (made.folder / "seal/k.seal.json").write_bytes(sign_seal(later, made.owner))
    tampering.rewrite_json(made.folder / "protocol.json", lambda value: value.update(alpha="0.0005"))
    tampering.custody_follows(made)


def swap_seal_and_drop_its_token(made: Made) -> None:
    swap_seal_of_same_owner(made)
    (made.folder / SEAL_TOKEN).unlink()
    tampering.sign_head_again(made)


def swap_seal_and_drop_what_names_it(made: Made) -> None:
    (made.folder / "seal/k.custody.jsonl").unlink()
    swap_seal_and_drop_its_token(made)


def edit_statistic(made: Made) -> None:
    tampering.rewrite_json(made.folder / "results.json", lambda value: value["test"].update(log10_p="-12.5"))
    tampering.custody_follows(made)


def swap_lines(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1], lines[2] = lines[2], lines[1]
    path.write_bytes(b"".join(lines))


def drop_last_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def ask_in_another_order(lines: list[dict]) -> None:
    lines[1]["positions"][:2] = lines[1]["positions"][1::-1]


def reverse_custody(made: Made) -> None:
    tampering.rechain(made.folder / "custody.jsonl", tampering.CUSTODY_DOMAIN, lambda lines: lines.reverse())


def link(made: Made) -> None:
    target = made.folder / "results.json"
    moved = made.folder.parent / "results.json"
    target.rename(moved)
    target.symlink_to(moved)


Act = Callable[[Made], object]
ACTS: dict[str, tuple[Act, bool, str]] = {
    # name: (what is done, whether the examiner signs again, first failing step)
    "unknown file added": (lambda m: (m.folder / "note.txt").write_bytes(b"x"), False, CONTAINER),
    "unknown folder added": (lambda m: (m.folder / "more").mkdir(), False, CONTAINER),
    "file in a subfolder added": (lambda m: (m.folder / "seal/x").mkdir(), False, CONTAINER),
    "link in a file's place": (link, False, CONTAINER),
    "raw body added": (lambda m: (m.folder / "raw" / ("0" * 64)).write_bytes(b"x"), False, MANIFEST),
    "seal's token twice": (lambda m: shutil.copy(m.folder / SEAL_TOKEN, m.folder / "seal/k.seal.2.tsr"), True, TIME),
    "head's token at the seal": (lambda m: shutil.copy(m.folder / HEAD_TOKEN, m.folder / SEAL_TOKEN), True, TIME),
    "seal's token at the head": (lambda m: shutil.copy(m.folder / SEAL_TOKEN, m.folder / HEAD_TOKEN), True, TIME),
    "seal's signature stripped": (lambda m: strip(m, "seal/k.seal.json"), True, SIGNATURES),
    "head's signature stripped": (lambda m: strip(m, "transcript.head.dsse.json"), True, SIGNATURES),
    "manifest's signature stripped": (lambda m: strip(m, "manifest.dsse.json"), False, SIGNATURES),
    "seal signed by a stranger": (lambda m: sign_by_stranger(m, "seal/k.seal.json"), True, SIGNATURES),
    "head signed by a stranger": (lambda m: sign_by_stranger(m, "transcript.head.dsse.json"), True, SIGNATURES),
    "manifest signed by a stranger": (lambda m: sign_by_stranger(m, "manifest.dsse.json"), False, SIGNATURES),
    "another seal of the same owner": (swap_seal_of_same_owner, True, SIGNATURES),
    "the same without its token, head signed again": (swap_seal_and_drop_its_token, True, CUSTODY),
    "the same without the key set's log either": (swap_seal_and_drop_what_names_it, True, RESULTS),
    "statistic edited": (edit_statistic, True, RESULTS),
    "transcript lines reordered": (lambda m: swap_lines(m.folder / "transcript.jsonl"), True, TIME),
    "last transcript line dropped": (lambda m: drop_last_line(m.folder / "transcript.jsonl"), True, TRANSCRIPT),
    "custody lines reordered": (lambda m: swap_lines(m.folder / "custody.jsonl"), True, CUSTODY),
    "last custody line dropped": (lambda m: drop_last_line(m.folder / "custody.jsonl"), True, CUSTODY),
    "custody reordered and chained again": (reverse_custody, True, CUSTODY),
    "asked in another order, chained and signed": (
        lambda m: tampering.change_transcript(m, ask_in_another_order), True, QUESTIONS,
    ),
    "another answer, chained and signed": (
        lambda m: tampering.change_transcript(m, lambda v: v[2]["answers"][0].update(label=3)), True, RAW_ANSWERS,
    ),
    "last line dropped, head signed again": (
        lambda m: tampering.change_transcript(m, lambda v: v.pop()), True, CUSTODY,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTS)
def test_act(made, authority, name):
    act, signed, expected = ACTS[name]
    act(made)
    if signed:
        tampering.sign_again(made)
        tampering.stamp_manifest(made, authority)
    witnesses = () if signed else (WITNESS.fingerprint,)
    assert first_failure(check(made, authority, witnesses=witnesses)) == expected


def test_an_examiner_who_signs_again_loses_the_witness(made, authority):
    tampering.sign_again(made)
    tampering.stamp_manifest(made, authority)
    assert first_failure(check(made, authority)) == FURTHER
    assert first_failure(check(made, authority, witnesses=())) == "none"


def test_later_files_of_an_earlier_manifest_do_not_fit_another_one(made, original, authority):
    (made.folder / "CHECK.txt").write_bytes(b"other instructions\n")
    tampering.sign_again(made)
    for path, expected in ((COSIGNATURE, FURTHER), (LATER_LOG, LATER), (ISSUED[0], DECLARED)):
        before = (made.folder / path).read_bytes() if (made.folder / path).exists() else None
        shutil.copy(original.folder / path, made.folder / path)
        assert first_failure(check(made, authority, witnesses=())) == expected
        (made.folder / path).unlink() if before is None else (made.folder / path).write_bytes(before)
