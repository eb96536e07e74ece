"""What was signed before a stop binds what a resumed audit may say."""

from dataclasses import replace

import pytest
from cases import TableSuspect, fails_at, marked, seal_keys, small_protocol

from auditor import casefile
from auditor.audit import Request
from auditor.errors import InterruptedAuditError, MissingPartError, SignatureError, TranscriptError
from auditor.evidence.bundle import read_bundle
from auditor.evidence.head import sign_head, verify_head
from auditor.evidence.recompute import resumption_deviations
from auditor.evidence.signing import SigningKey
from auditor.evidence.superseded import check_superseded, set_aside
from auditor.evidence.transcript import read_transcript
from auditor.report import pdf
from auditor.resumption import read_stopped

EXAMINER = SigningKey.generate()
HEAD = "superseded/1.transcript.head.dsse.json"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle whose audit was interrupted and signed, resumed, killed in the middle of a line, and resumed again."""
    folder = tmp_path_factory.mktemp("superseded")
    opened = seal_keys(folder / "k.npz", small_protocol())
    audit = folder / "audit"

    def refuse(*_, **__):
        raise MissingPartError("no PDF in this test")

    def go_on(suspect):
        stopped = read_stopped(audit) if audit.exists() else None
        request = Request()
        if stopped is not None:
            request = casefile.request_again(stopped, opened, alpha=None, max_queries=None, operator="")
        casefile.verify(
            opened=opened,
            suspect=suspect,
            folder=audit,
            request=request,
            examiner=EXAMINER,
            resume=stopped is not None,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pdf, "make_pdf", refuse)
        with pytest.raises(InterruptedAuditError, match="--resume"):
            go_on(TableSuspect(marked, trouble=fails_at(2, error=KeyboardInterrupt())))
        with pytest.raises(InterruptedAuditError):
            go_on(TableSuspect(marked, trouble=fails_at(2, error=KeyboardInterrupt())))
        # Half a line at the end is what a power failure leaves; here the examiner's closing line is lost to it.
        file = audit / "transcript.jsonl"
        data = file.read_bytes()
        file.write_bytes(data[:-20])
        (audit / "transcript.head.dsse.json").unlink()
        go_on(TableSuspect(marked))
    return read_bundle(audit)


def examine(bundle, **contents):
    changed = replace(bundle, contents={**bundle.contents, **contents})
    return check_superseded(
        changed, read_transcript(changed.contents["transcript.jsonl"]), examiner_public=EXAMINER.public
    )


def test_the_record_goes_on_from_what_was_signed(bundle):
    assert examine(bundle) == "resumed 2 times, goes on from 1 signed before a stop; "
    first, second = read_transcript(bundle.contents["transcript.jsonl"]).resumptions
    assert (first.stop.value, second.stop.value) == ("interrupted", "unclosed")
    assert second.torn_bytes > 100
    assert bundle.sha256(f"raw/{second.torn_sha256}")
    told = resumption_deviations(read_transcript(bundle.contents["transcript.jsonl"]))
    assert [text.split("): ")[1].split(";")[0] for text in told] == [
        "the user had interrupted it",
        "the record had ended without a closing line",
    ]


def test_a_head_of_another_examiner_or_another_record_is_refused(bundle):
    other = SigningKey.generate()
    head = verify_head(bundle.contents[HEAD], examiner_public=EXAMINER.public)
    with pytest.raises(SignatureError):
        examine(bundle, **{HEAD: sign_head(head, examiner=other)})
    for changed in (
        replace(head, head="00" * 32),
        replace(head, n_lines=head.n_lines - 1),
        replace(head, transcript_sha256="00" * 32),
    ):
        with pytest.raises(TranscriptError, match="does not go on"):
            examine(bundle, **{HEAD: sign_head(changed, examiner=EXAMINER)})


def test_a_torn_line_must_be_kept(bundle):
    transcript = read_transcript(bundle.contents["transcript.jsonl"])
    torn = f"raw/{transcript.resumptions[1].torn_sha256}"
    entries = {path: entry for path, entry in bundle.entries.items() if path != torn}
    with pytest.raises(TranscriptError, match="cut short"):
        check_superseded(replace(bundle, entries=entries), transcript, examiner_public=EXAMINER.public)


def test_files_are_set_aside_once_under_free_numbers(tmp_path):
    for n in range(3):
        (tmp_path / "report.pdf").write_bytes(bytes([n]))
        set_aside(tmp_path, ("report.pdf", "absent"), number=1)
    found = {path.name: path.read_bytes() for path in (tmp_path / "superseded").iterdir()}
    assert found == {f"{n + 1}.report.pdf": bytes([n]) for n in range(3)}
