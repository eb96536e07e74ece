"""Full, read-only and vanished disks: one clear line, nothing written is changed, and the audit goes on later."""

import errno
import os
import shutil
import subprocess

import pytest
from cases import TableSuspect, marked, seal_keys, small_protocol

from auditor import asking, casefile
from auditor.audit import Request
from auditor.errors import MissingPartError, StorageError, UsageError
from auditor.evidence import storage
from auditor.evidence.bundle_folder import clear_parts
from auditor.evidence.storage import locked, own_folder, put, storing, write_new
from auditor.evidence.transcript import TranscriptWriter, read_transcript, recoverable_prefix
from auditor.report import pdf


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return seal_keys(tmp_path_factory.mktemp("keys") / "k.npz", small_protocol())


@pytest.fixture(autouse=True)
def _no_pdf(monkeypatch):
    def refuse(*_, **__):
        raise MissingPartError("no PDF in this test")

    monkeypatch.setattr(pdf, "make_pdf", refuse)


def verify(opened, folder, suspect=None, **how):
    suspect = suspect or TableSuspect(marked)
    return casefile.verify(opened=opened, suspect=suspect, folder=folder, request=Request(), **how)


def resumed(opened, folder):
    from auditor.resumption import read_stopped

    stopped = read_stopped(folder)
    request = Request()
    if stopped.transcript is not None:
        request = casefile.request_again(stopped, opened, alpha=None, max_queries=None, operator="")
    return casefile.verify(opened=opened, suspect=TableSuspect(marked), folder=folder, request=request, resume=True)


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    write_new(tmp_path / "a", b"one")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", b"two")
    assert not put(tmp_path / "a", b"one")

    def refuse(_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="full"):
        put(tmp_path / "a", b"two")
    with pytest.raises(OSError, match="full"):
        write_new(tmp_path / "b", b"two")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"one"


def test_a_link_is_never_written_through(tmp_path):
    (tmp_path / "target").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "link", b"yours")
    put(tmp_path / "link", b"yours")
    assert (tmp_path / "target").read_bytes() == b"mine"


def test_one_process_at_a_time(tmp_path):
    with locked(tmp_path), pytest.raises(UsageError, match="another process"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_an_audit_that_wrote_nothing_leaves_no_folder(tmp_path):
    with pytest.raises(UsageError), own_folder(tmp_path / "a", resume=False):
        raise UsageError("does not fit")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EFBIG, "the disk is full"),
        (errno.EROFS, "cannot be written to any more"),
        (errno.EACCES, "cannot be written to any more"),
        (errno.ENOENT, "is gone"),
        (errno.ESTALE, "is gone"),
        (errno.EIO, "cannot be written (OSError)"),
    ],
)
def test_what_the_file_system_refuses_is_one_line(tmp_path, code, words):
    with pytest.raises(StorageError) as caught, storing(tmp_path / "a", advice="; do this"):
        raise OSError(code, "secret detail", "/secret/path")
    assert words in str(caught.value)
    assert str(caught.value).endswith("what was written before is kept; do this")
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 5


WRITERS = ("request", "response", "closed", "store_raw", "bundle", "manifest")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("where", WRITERS)
def test_a_disk_that_gives_up_at_any_write_leaves_an_audit_that_goes_on(opened, tmp_path, monkeypatch, where, code):
    def refuse(*_, **__):
        raise OSError(code, "no")

    folder, calls = tmp_path / "a", []

    def third(original):
        def sometimes(*arguments, **options):
            calls.append(1)
            return refuse() if len(calls) == 3 else original(*arguments, **options)

        return sometimes

    with monkeypatch.context() as patch:
        match where:
            case "request" | "response":
                patch.setattr(TranscriptWriter, where, third(getattr(TranscriptWriter, where)))
            case "closed":
                patch.setattr(TranscriptWriter, "closed", refuse)
            case "store_raw":
                patch.setattr(asking, "MAX_INLINE_BODY", 0)
                patch.setattr(asking, "store_raw", third(asking.store_raw))
            case "bundle":
                patch.setattr("auditor.evidence.bundle.put", third(put))
            case "manifest":
                patch.setattr("auditor.evidence.bundle.sign_manifest", refuse)
        with pytest.raises(StorageError):
            verify(opened, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    case = resumed(opened, folder)
    assert case.exit_code == 0
    for path, data in before.items():
        assert path.read_bytes().startswith(data) or path.name in ("custody.jsonl", "custody.later.jsonl"), path


def test_a_write_that_stops_in_the_middle_of_a_line_leaves_whole_lines(opened, tmp_path, monkeypatch):
    original, calls = TranscriptWriter._write, []

    def half(self, data):
        calls.append(1)
        if len(calls) == 5:
            self._file.write(bytes(data[:50]))
            raise OSError(errno.ENOSPC, "full")
        original(self, data)

    monkeypatch.setattr(TranscriptWriter, "_write", half)
    with pytest.raises(StorageError):
        verify(opened, tmp_path / "a")
    data = (tmp_path / "a" / "transcript.jsonl").read_bytes()
    assert recoverable_prefix(data) == data
    assert read_transcript(data).n_lines == 7
    monkeypatch.undo()
    assert resumed(opened, tmp_path / "a").exit_code == 0


def test_nothing_is_asked_that_could_not_be_kept(opened, tmp_path, monkeypatch):
    suspect = TableSuspect(marked)
    monkeypatch.setattr(storage, "MIN_FREE_BYTES", 2**62)
    with pytest.raises(StorageError, match="MiB are free"):
        verify(opened, tmp_path / "a", suspect)
    assert not suspect.n_batches
    monkeypatch.undo()
    assert resumed(opened, tmp_path / "a").exit_code == 0


@pytest.mark.parametrize("number", [0, 3])
def test_a_folder_that_vanishes_is_noticed_before_the_next_question(opened, tmp_path, number):
    folder = tmp_path / "a"

    def vanish(batch):
        if batch == number:
            shutil.rmtree(folder)

    suspect = TableSuspect(marked, trouble=vanish)
    with pytest.raises(StorageError, match="gone"):
        verify(opened, folder, suspect)
    assert suspect.n_batches == number + 1


def test_a_transcript_that_is_removed_while_it_is_written_is_noticed(opened, tmp_path):
    suspect = TableSuspect(marked, trouble=lambda n: (tmp_path / "a" / "transcript.jsonl").unlink(missing_ok=True))
    with pytest.raises(StorageError, match="removed"):
        verify(opened, tmp_path / "a", suspect)
    assert suspect.n_batches == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root ignores permissions")
def test_a_read_only_folder(opened, tmp_path):
    (tmp_path / "a").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="cannot be written"):
        verify(opened, tmp_path / "a")


def test_a_real_disk_that_is_full(opened, tmp_path, monkeypatch):
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "none", place], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        monkeypatch.setattr(storage, "MIN_FREE_BYTES", 0)
        with pytest.raises(StorageError, match="the disk is full"):
            verify(opened, place / "a")
        subprocess.run(["mount", "-o", "remount,size=8m", place], check=True)
        assert resumed(opened, place / "a").exit_code == 0
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        with pytest.raises(UsageError, match="cannot be written"):
            verify(opened, place / "b")
    finally:
        subprocess.run(["umount", place], check=True)


def test_half_files_are_cleared_in_a_bundle_only(tmp_path):
    (tmp_path / "raw").mkdir()
    for name in ("results.json.part", f"raw/{'ab' * 32}.part", "manifest.json.part", "env.json"):
        (tmp_path / name).write_bytes(b"x")
    clear_parts(tmp_path)
    assert [path.name for path in sorted(tmp_path.rglob("*")) if path.is_file()] == ["env.json"]
