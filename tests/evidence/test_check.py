import base64
import dataclasses
import hashlib
import json
import shutil

import bundles
import pytest

from auditor.canonical import canonical_bytes, sha256_hex
from auditor.errors import EvidenceError, MissingPartError, SealError, SuspectError
from auditor.evidence import bundle as bundle_files
from auditor.evidence.bundle import certificate_digest
from auditor.evidence.bundle_folder import list_files
from auditor.evidence.check import CheckOutcome, CheckReport, CheckStep, check_bundle
from auditor.evidence.manifest import Endorsement, Entry, manifest_bytes, sign_manifest
from auditor.evidence.open_custody import OpenLog, signing_event
from auditor.evidence.openings import write_openings
from auditor.evidence.seal import open_seal, sign_seal
from auditor.evidence.signing import SigningKey
from auditor.evidence.transcript import DOMAIN, read_transcript

FAIL, PASS, NOT_CHECKED = CheckOutcome.FAIL, CheckOutcome.PASS, CheckOutcome.NOT_CHECKED


def check(folder, *, owner=None, examiner=None, render_html=None, check_pdf=None) -> CheckReport:
    return check_bundle(
        folder,
        owner_fingerprint=owner,
        examiner_fingerprint=examiner,
        render_html=render_html,
        check_pdf=check_pdf,
    )


def outcome(report: CheckReport, title: str) -> CheckStep:
    return next(step for step in report.steps if step.title.startswith(title))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return bundles.make_bundle(tmp_path_factory.mktemp("check") / "bundle")


@pytest.fixture
def made(original, tmp_path):
    shutil.copytree(original.folder, tmp_path / "bundle")
    return dataclasses.replace(original, folder=tmp_path / "bundle")


def resign(made) -> None:
    """Sign the folder as it stands, as a dishonest examiner would; the endorsement follows the files where it can."""
    for name in ("manifest.json", "manifest.dsse.json"):
        (made.folder / name).unlink()
    data = {path: (made.folder / path).read_bytes() for path, _ in list_files(made.folder)}
    manifest = manifest_bytes({p: Entry(path=p, size=len(d), sha256=sha256_hex(d)) for p, d in data.items()})
    try:
        head = read_transcript(data["transcript.jsonl"]).head
        (made.folder / "transcript.head.dsse.json").unlink()
        bundle_files.write_head(made.folder, examiner=made.examiner, clock=lambda: bundles.START)
        data = {path: (made.folder / path).read_bytes() for path, _ in list_files(made.folder)}
        manifest = manifest_bytes({p: Entry(path=p, size=len(d), sha256=sha256_hex(d)) for p, d in data.items()})
    except EvidenceError:
        head = "00" * 32
    certificate = data.get("certs/report.crt.pem")
    endorsement = Endorsement(
        owner_fingerprint=made.owner.fingerprint,
        examiner_fingerprint=made.examiner.fingerprint,
        seal_sha256=sha256_hex(data["seal/k.seal.json"]),
        transcript_head=head,
        report_certificate_sha256="" if certificate is None else certificate_digest(certificate),
        signed_at="2026-11-22T11:00:00.000Z",
        tool_version="1.0.0",
    )
    (made.folder / "custody.later.jsonl").unlink()
    log = OpenLog(made.folder / "custody.later.jsonl", anchor=sha256_hex(manifest))
    log.add(signing_event(manifest, at=endorsement.signed_at), key=made.examiner)
    (made.folder / "manifest.json").write_bytes(manifest)
    (made.folder / "manifest.dsse.json").write_bytes(sign_manifest(manifest, endorsement, examiner=made.examiner))


def rewrite(made, name: str, data: bytes) -> None:
    (made.folder / name).write_bytes(data)


def rewrite_json(made, name: str, change) -> None:
    value = json.loads((made.folder / name).read_bytes())
    change(value)
    rewrite(made, name, canonical_bytes(value) + b"\n")


def rewrite_lines(made, name: str, domain: bytes, change) -> None:
    """Change a chained file and chain it again, so that only its content is wrong."""
    lines = [json.loads(line) for line in (made.folder / name).read_bytes().splitlines()]
    change(lines)
    out, previous = b"", b""
    for number, line in enumerate(lines):
        previous = canonical_bytes(
            {**line, "seq": number, "prev": hashlib.sha256(domain + previous).hexdigest()},
        )
        out += previous + b"\n"
    rewrite(made, name, out)


def update_custody(made) -> None:
    """Let the custody log name the objects as they stand."""

    def change(lines):
        for line in lines:
            line["sha256"] = sha256_hex((made.folder / line["path"]).read_bytes())
        lines[0]["at"] = open_seal((made.folder / "seal/k.seal.json").read_bytes()).sealed_at
        lines[1]["at"] = read_transcript((made.folder / "transcript.jsonl").read_bytes()).closed_at

    rewrite_lines(made, "custody.jsonl", b"auditor/1 custody line\0", change)


# --- sound bundles ---


def test_a_sound_bundle_is_intact_and_says_what_was_not_checked(made):
    report = check(made.folder, owner=made.owner.fingerprint, examiner=made.examiner.fingerprint.upper())
    assert report.intact
    assert not report.complete
    assert [step.number for step in report.steps] == list(range(1, 23))
    unchecked = {step.title for step in report.steps if step.outcome is NOT_CHECKED}
    assert unchecked == {
        "trusted time", "judge's randomness", "error rates on a panel", "report.html rendered again", "report.pdf",
        "generation of the keys", "declarations and issued reports", "certificate of the PDF",
        "revocation of certificates",
    }  # fmt: skip
    assert all(step.detail for step in report.steps)


@pytest.mark.parametrize(
    ("protocol", "stolen"), [(bundles.small_protocol(), False), (bundles.protocols.a_protocol(), True)]
)
def test_bundles_of_other_audits_are_intact(tmp_path, protocol, stolen):
    made = bundles.make_bundle(tmp_path / "bundle", protocol=protocol, stolen=stolen, batch_size=5)
    report = check(made.folder)
    assert report.intact
    assert outcome(report, "results").outcome is PASS


def test_a_supported_finding_has_its_opinion_checked(tmp_path):
    protocol = bundles.protocols.a_protocol(max_failed_share=0.5, obstruction_alpha=1e-9)
    made = bundles.make_bundle(tmp_path / "bundle", protocol=protocol, batch_size=5, n_asked=300)
    report = check(made.folder)
    assert report.intact
    assert "supported" in outcome(report, "results").detail
    assert "likelihood ratio" in outcome(report, "opinion").detail


def test_an_audit_that_asked_nothing_is_intact(tmp_path):
    made = bundles.make_bundle(tmp_path / "bundle", n_asked=0)
    assert check(made.folder).intact


def test_an_interrupted_audit_is_intact(made):
    rewrite_lines(made, "transcript.jsonl", DOMAIN, lambda lines: lines[-1].update(reason="interrupted"))
    results = recomputed(made)
    rewrite(made, "results.json", canonical_bytes(results) + b"\n")
    update_custody(made)
    resign(made)
    report = check(made.folder)
    assert report.intact
    assert "interrupted" in outcome(report, "transcript").detail


def recomputed(made):
    from auditor.evidence.recompute import recompute_results

    return recompute_results(
        seal=made.opened.seal,
        seal_sha256=sha256_hex(made.opened.envelope),
        transcript=read_transcript((made.folder / "transcript.jsonl").read_bytes()),
        samples={sample.index: sample for sample in made.opened.keys.samples},
        data={sample.index: made.opened.keys.data(sample.index) for sample in made.opened.keys.samples},
    )


# --- accidents: any byte, any cut ---


def places(data: bytes, name: str, *, step: int) -> range:
    """Every byte of small files; of larger ones a sample whose step shares no factor with 8."""
    return range(0, len(data), 1 if len(data) <= 1300 or name.startswith("manifest") else step)


@pytest.mark.parametrize("step", [29, pytest.param(7, marks=pytest.mark.slow)])
def test_flipping_any_byte_fails(made, step):
    for path in made.files():
        name, data = str(path.relative_to(made.folder)), path.read_bytes()
        # Written in place: opening and cutting a file anew costs more than the check itself.
        with path.open("r+b", buffering=0) as file:
            for place in places(data, name, step=step):
                for byte in (data[place] ^ 1 << (place % 8), data[place]):
                    file.seek(place)
                    file.write(bytes([byte]))
                    if byte != data[place]:
                        assert not check(made.folder).intact, (name, place)
    assert check(made.folder).intact


def test_cutting_any_file_fails(made):
    for path in made.files():
        data = path.read_bytes()
        for length in {0, 1, len(data) // 2, len(data) - 1}:
            path.write_bytes(data[:length])
            assert not check(made.folder).intact
        path.write_bytes(data + b"\n")
        assert not check(made.folder).intact
        path.write_bytes(data)


def test_a_failed_early_step_leaves_the_rest_unchecked(made):
    rewrite(made, "env.json", b"{}\n")
    report = check(made.folder)
    assert [step.outcome for step in report.steps][:2] == [PASS, FAIL]
    assert {step.outcome for step in report.steps[2:]} == {NOT_CHECKED}
    assert report.steps[3].detail == "step 3 failed"


@pytest.mark.parametrize("kind", ["absent", "file", "empty"])
def test_what_is_no_bundle_fails(tmp_path, kind):
    path = tmp_path / "bundle"
    if kind == "file":
        path.write_bytes(b"x")
    if kind == "empty":
        path.mkdir()
    assert not check(path).intact


# --- identities ---


def test_unexpected_keys_fail(made):
    report = check(made.folder, owner=made.examiner.fingerprint)
    assert outcome(report, "expected keys").outcome is FAIL
    assert outcome(report, "results").outcome is PASS
    report = check(made.folder, owner=made.owner.fingerprint)
    assert outcome(report, "expected keys").outcome is NOT_CHECKED
    assert "examiner" in outcome(report, "expected keys").detail


def test_a_bundle_signed_again_by_a_stranger_fails_for_who_knows_the_examiner(made):
    stranger = SigningKey.generate()
    rewrite(made, "certs/examiner.pub.pem", stranger.public_pem())
    custody = (made.folder / "custody.jsonl").read_bytes()
    rewrite(made, "custody.jsonl", custody.replace(made.examiner.fingerprint.encode(), stranger.fingerprint.encode()))
    update_custody(made)
    resign(dataclasses.replace(made, examiner=stranger))
    assert check(made.folder).intact
    report = check(made.folder, examiner=made.examiner.fingerprint)
    assert outcome(report, "expected keys").outcome is FAIL


# --- a dishonest examiner: everything is signed and chained again ---


def answer_otherwise(lines):
    answer = lines[2]["answers"][0]
    answer["label"] = (answer["label"] + 1) % 4


def ask_in_another_order(lines):
    lines[1]["positions"][:2] = lines[1]["positions"][1::-1]


def drop_second_batch(lines):
    del lines[3:6]
    lines[-1]["counts"].update(batches=1, questions=8, failed_attempts=0, failed_batches=0)


TRANSCRIPT_FORGERIES = {
    "another answer": (answer_otherwise, "raw answers"),
    "another score": (lambda v: v[2]["answers"][0]["scores"].__setitem__(0, "0.5"), "raw answers"),
    "another order": (ask_in_another_order, "order of the questions"),
    "other inputs": (lambda v: v[1].update(body_sha256="00" * 32), "order of the questions"),
    "questions dropped": (drop_second_batch, "order of the questions"),
    "raw body missing": (lambda v: v[2].update(body_sha256="00" * 32), "transcript"),
    "another seal": (lambda v: v[0]["preamble"].update(seal_sha256="00" * 32), "results recomputed"),
    "another key set": (lambda v: v[0]["preamble"].update(keyset_id="00" * 16), "results recomputed"),
    "looser level": (lambda v: v[0]["preamble"].update(alpha="0.05"), "results recomputed"),
    "level that underflows": (lambda v: v[0]["preamble"].update(alpha="5e-324"), "results recomputed"),
    "more keys": (lambda v: v[0]["preamble"].update(max_keys=9), "results recomputed"),
    "fewer keys than asked": (lambda v: v[0]["preamble"].update(max_keys=1), "results recomputed"),
    "another suspect": (lambda v: v[0]["preamble"]["suspect"].update(uri="http://x"), "results recomputed"),
    "preamble lacks a field": (lambda v: v[0]["preamble"].pop("suspect"), "results recomputed"),
    "preamble has another type": (lambda v: v[0]["preamble"].update(max_keys="8"), "results recomputed"),
    "hidden deviation": (lambda v: v[0]["preamble"].update(deviations=["x"]), "results recomputed"),
    "another environment": (lambda v: v[0]["preamble"].update(environment_sha256="00" * 32), "times"),
    "asked before the seal": (lambda v: [line.update(at="2026-10-01T00:00:00.000Z") for line in v], "times"),
}


@pytest.mark.parametrize("name", TRANSCRIPT_FORGERIES)
def test_forged_transcripts_fail_at_the_right_step(made, name):
    change, title = TRANSCRIPT_FORGERIES[name]
    rewrite_lines(made, "transcript.jsonl", DOMAIN, change)
    update_custody(made)
    resign(made)
    report = check(made.folder)
    assert outcome(report, title).outcome is FAIL, report


RESULT_FORGERIES = {
    "verdict": lambda v: v["verdict"].update(status="supported"),
    "hits": lambda v: v["detection"].update(hits=v["detection"]["hits"] + 1),
    "p-value": lambda v: v["test"].update(log10_p="-9.0"),
    "band": lambda v: v["opinion"].update(band="extremely strong support"),
    "serial": lambda v: v["keyset"].update(serial=7),
    "extra": lambda v: v.update(more=1),
    "missing": lambda v: v.pop("opinion"),
}


@pytest.mark.parametrize("name", RESULT_FORGERIES)
def test_forged_results_fail(made, name):
    rewrite_json(made, "results.json", RESULT_FORGERIES[name])
    update_custody(made)
    resign(made)
    step = outcome(check(made.folder), "results recomputed")
    assert step.outcome is FAIL
    assert "first in section" in step.detail


@pytest.mark.parametrize("data", [b"", b"[]\n", b"{}\n", b"\xff", b'{"a":1.5}\n'])
def test_results_that_are_no_results_fail(made, data):
    rewrite(made, "results.json", data)
    update_custody(made)
    resign(made)
    assert outcome(check(made.folder), "results recomputed").outcome is FAIL


def change_pixel(value):
    value["samples"][0]["data_b64"] = base64.b64encode(bytes(4)).decode()


OPENING_FORGERIES = {
    "another label": lambda v: v["samples"][0].update(expected=v["samples"][0]["natural"]),
    "another pixel": change_pixel,
    "sample withheld": lambda v: v["samples"].pop(),
}


@pytest.mark.parametrize("name", OPENING_FORGERIES)
def test_forged_openings_fail(made, name):
    rewrite_json(made, "openings.json", OPENING_FORGERIES[name])
    update_custody(made)
    resign(made)
    assert not check(made.folder).intact


def test_more_opened_than_asked_fails(made):
    rewrite(made, "openings.json", write_openings(made.opened.keys.openings(range(18)), seal=made.opened.seal))
    update_custody(made)
    resign(made)
    step = outcome(check(made.folder), "order of the questions")
    assert step.outcome is FAIL
    assert "exactly those" in step.detail


def test_another_protocol_beside_the_seal_fails(made):
    rewrite_json(made, "protocol.json", lambda v: v.update(alpha="0.0005"))
    resign(made)
    assert outcome(check(made.folder), "seal").outcome is FAIL


def test_another_seal_of_the_same_owner_fails(made):
    """A loosened protocol, sealed after the fact by the owner, does not fit what the transcript recorded."""
    seal = made.opened.seal
    later = dataclasses.replace(seal, protocol=dataclasses.replace(seal.protocol, alpha=5e-4))
    rewrite(made, "seal/k.seal.json", sign_seal(later, made.owner))
    rewrite_json(made, "protocol.json", lambda v: v.update(alpha="0.0005"))
    update_custody(made)
    resign(made)
    assert outcome(check(made.folder), "results recomputed").outcome is FAIL


@pytest.mark.parametrize("name", ["certs/owner.pub.pem", "certs/examiner.pub.pem"])
def test_other_public_keys_in_the_bundle_fail(made, name):
    rewrite(made, name, SigningKey.generate().public_pem())
    resign(made)
    assert outcome(check(made.folder), "signatures").outcome is FAIL


def test_a_certificate_nobody_signed_for_fails(made):
    rewrite(made, "certs/report.crt.pem", b"junk")
    with pytest.raises(EvidenceError):
        resign(made)


CUSTODY_FORGERIES = {
    "act dropped": lambda v: v.pop(),
    "another digest": lambda v: v[2].update(sha256="00" * 32),
    "another object": lambda v: v[2].update(path="nothing"),
    "another actor": lambda v: v[2].update(actor="nobody"),
    "another act": lambda v: v[2].update(act="analysed"),
    "unknown act": lambda v: v[2].update(act="lost"),
    "another time of sealing": lambda v: v[0].update(at="2026-10-01T00:00:00.000Z"),
    "after the signature": lambda v: v[3].update(at="2027-01-01T00:00:00.000Z"),
}


@pytest.mark.parametrize("name", CUSTODY_FORGERIES)
def test_forged_custody_fails(made, name):
    rewrite_lines(made, "custody.jsonl", b"auditor/1 custody line\0", CUSTODY_FORGERIES[name])
    resign(made)
    assert outcome(check(made.folder), "times").outcome is FAIL


@pytest.mark.parametrize("data", [b"", b"[]\n", b'{ "a":1}\n'])
def test_an_environment_in_another_form_fails(made, data):
    rewrite(made, "env.json", data)
    resign(made)
    assert outcome(check(made.folder), "times").outcome is FAIL


@pytest.mark.parametrize(
    "name", ["seal/k.seal.json", "openings.json", "protocol.json", "transcript.jsonl", "results.json"]
)
def test_flipped_bytes_fail_even_when_the_manifest_follows(made, name):
    path = made.folder / name
    data = path.read_bytes()
    for place in range(0, len(data), max(1, len(data) // 60)):
        broken = bytearray(data)
        broken[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(broken))
        resign(made)
        assert not check(made.folder).intact, place


# --- the report ---


def test_the_report_is_rendered_again(made):
    stored = (made.folder / "report.html").read_bytes()
    seen = []

    def render(bundle):
        seen.append(bundle)
        return stored

    assert outcome(check(made.folder, render_html=render), "report.html").outcome is PASS
    assert set(seen[0].contents) >= {"results.json", "transcript.jsonl", "custody.jsonl"}
    step = outcome(check(made.folder, render_html=lambda bundle: b"other"), "report.html")
    assert step.outcome is FAIL


@pytest.mark.parametrize(
    ("error", "expected"),
    [(MissingPartError("install x"), NOT_CHECKED), (SealError("no"), FAIL), (SuspectError("odd"), FAIL)],
)
def test_errors_of_the_renderer_become_outcomes(made, error, expected):
    def render(bundle):
        raise error

    step = outcome(check(made.folder, render_html=render), "report.html")
    assert step.outcome is expected
    assert str(error) in step.detail


def test_the_pdf_is_handed_to_its_checker(tmp_path):
    made = bundles.make_bundle(tmp_path / "bundle", report=None)
    report = check(made.folder, check_pdf=lambda bundle: "fine")
    assert outcome(report, "report.pdf").outcome is NOT_CHECKED
    assert "holds no report.html" in outcome(report, "report.html").detail
    rewrite(made, "report.pdf", b"%PDF-1.7")
    resign(made)
    assert outcome(check(made.folder, check_pdf=lambda bundle: "fine"), "report.pdf").detail == "fine"
    assert "not asked" in outcome(check(made.folder), "report.pdf").detail


def test_a_complete_report_has_only_passes():
    steps = [CheckStep(number=i, title="t", outcome=PASS, detail="d") for i in range(3)]
    assert CheckReport(steps=tuple(steps)).complete
