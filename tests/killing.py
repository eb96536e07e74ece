"""Runs ``auditor`` in processes that kill themselves at a chosen step; started by ``Killer``.

The process that this file's ``main`` runs in imports the tool once and forks for every command, which spares each of
them the start. A forked child is a process of its own; the kill is a real SIGKILL.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path


class Killer:
    """Starts commands, some of which die on the way."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"AUDITOR_HOME": str(home)},
        )

    def run(self, *arguments: object, step: str = "", pdf: bool = False, file_limit: int = 0) -> tuple[int, str, str]:
        """Return exit code (negative: killed by that signal), stdout and stderr of one command.

        Args:
            arguments: of the command line.
            step: where the process kills itself, a name in ``STEPS``; empty lets it live.
            pdf: whether the report is rendered to PDF, which takes most of the time of a small audit.
            file_limit: bytes after which a file cannot grow, as on a full disk; 0 for no limit.
        """
        order = {"arguments": [str(a) for a in arguments], "step": step, "pdf": pdf, "file_limit": file_limit}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        return answer["code"], answer["stdout"], answer["stderr"]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(owner: object, name: str, count: int = 1):
    """Have the process die right after the ``count``-th call of a function."""

    def install() -> None:
        original = getattr(owner, name)
        calls = [0]

        def dying(*args, **kwargs):
            result = original(*args, **kwargs)
            calls[0] += 1
            if calls[0] == count:
                die()
            return result

        setattr(owner, name, dying)

    return install


def written(entry: str, count: int = 1):
    """Have the process die right after the write that brought the ``count``-th line of a kind to disk."""

    def install() -> None:
        from auditor.evidence.transcript import TranscriptWriter

        original, calls = TranscriptWriter._write, [0]

        def dying(self, data):
            original(self, data)
            calls[0] += sum(json.loads(line)["entry"] == entry for line in data.splitlines())
            if calls[0] >= count:
                die()

        TranscriptWriter._write = dying

    return install


def apart(step):
    """Have bodies kept in files of their own, as long ones are, and then have the process die."""

    def install() -> None:
        from auditor import asking

        asking.MAX_INLINE_BODY = 0
        step()

    return install


def torn(entry: str, count: int = 1):
    """Have the process die when half of the ``count``-th line of a kind is in the transcript."""

    def install() -> None:
        from auditor.evidence.transcript import TranscriptWriter

        original, calls = TranscriptWriter._write, [0]

        def tearing(self, data):
            before = 0
            for line in data.splitlines(keepends=True):
                calls[0] += json.loads(line)["entry"] == entry
                if calls[0] == count:
                    os.write(self._file.fileno(), bytes(data[: before + len(line) * 2 // 3]))
                    die()
                before += len(line)
            original(self, data)

        TranscriptWriter._write = tearing

    return install


def ctrl_c(count: int):
    """Have the user press Ctrl-C while the ``count``-th question is on its way, after its answer came."""

    def install() -> None:
        from auditor.suspects.http.adapter import HttpSuspect

        original, calls = HttpSuspect.query, [0]

        def interrupting(self, inputs):
            calls[0] += 1
            if calls[0] > count:
                os.kill(os.getpid(), signal.SIGINT)
            return original(self, inputs)

        HttpSuspect.query = interrupting

    return install


def before_rename(count: int):
    """Have the process die when the ``count``-th file is written whole but does not bear its name yet."""

    def install() -> None:
        original, calls = Path.replace, [0]

        def dying(self, target):
            calls[0] += 1
            if calls[0] == count:
                die()
            return original(self, target)

        Path.replace = dying

    return install


def steps():
    """Return every place to die by name: after each numbered step, and inside it where it writes."""
    from auditor import asking, audit, casefile
    from auditor.evidence import bundle
    from auditor.evidence.open_custody import OpenLog
    from auditor.evidence.transcript import TranscriptWriter
    from auditor.suspects.http.adapter import HttpSuspect

    return {
        "2 power forecast": after(audit, "forecast_power"),
        "3 suspect described": after(HttpSuspect, "describe"),
        "4 seal written": after(bundle, "write_new"),
        "4 environment half written": before_rename(2),
        "4 bundle created": after(bundle, "create"),
        "4 preamble torn": torn("open"),
        "4 preamble written": after(TranscriptWriter, "opened"),
        "5 request torn": torn("request", 3),
        "5 request written": written("request", 3),
        "5 answer received": after(HttpSuspect, "query", 3),
        "5 body stored": apart(after(asking, "store_raw", 3)),
        "5 response torn": torn("response", 3),
        "5 response written": written("response", 3),
        "5 stage 1 answered": written("response", 7),
        "5 stage 2 in flight": written("request", 8),
        "5 stage 2 answered": written("response", 8),
        "6 closing line torn": torn("close"),
        "6 transcript closed": after(TranscriptWriter, "closed"),
        "6 head signed": after(bundle, "write_head"),
        "7 openings written": after(bundle, "put", 1),
        "7 protocol written": after(bundle, "put", 2),
        "7 results written": after(bundle, "put", 3),
        "7 owner's key written": after(bundle, "put", 4),
        "7 examiner's key written": after(bundle, "put", 5),
        "7 custody written": after(bundle, "put", 6),
        "8 certificate written": after(casefile, "put", 1),
        "8 html written": after(casefile, "put", 2),
        "8 pdf signed": after(casefile, "write_new"),
        "8 annexes written": after(bundle, "put", 8),
        "9 CHECK.txt written": after(bundle, "put", 9),
        "9 manifest written": after(bundle, "put", 10),
        "9 later log begun": after(OpenLog, "add"),
        "9 manifest signed": after(bundle, "write_manifest"),
        "10 own output checked": after(casefile, "_check_own_output"),
        "resumption recorded": after(TranscriptWriter, "resumed"),
        "resumption torn": torn("resumed"),
        "retry recorded": written("retry"),
        "head set aside": after(os, "rename"),
        "Ctrl-C at 3": ctrl_c(3),
    }


def child(order: dict, folder: str) -> None:
    """Carry out one command and end the process."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if not order["pdf"]:
        without_pdf()
    if order["step"]:
        steps()[order["step"]]()
    if order["file_limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], resource.RLIM_INFINITY))
    from auditor.cli.app import app

    sys.argv = ["auditor", *order["arguments"]]
    code = 1
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def without_pdf() -> None:
    from auditor.errors import MissingPartError
    from auditor.report import pdf

    def no_pdf(*_, **__):
        raise MissingPartError("no PDF in this test")

    pdf.make_pdf = no_pdf


def warm_up(folder: Path) -> None:
    """Audit once without a network, so that forks find everything imported."""
    from cases import TableSuspect, marked, seal_keys, small_protocol

    import auditor.cli.app
    import auditor.report.pdf
    import auditor.suspects.http.adapter
    from auditor import casefile
    from auditor.audit import Request

    make_pdf = auditor.report.pdf.make_pdf
    without_pdf()
    opened = seal_keys(folder / "k.npz", small_protocol())
    casefile.verify(opened=opened, suspect=TableSuspect(marked), folder=folder / "a", request=Request())
    auditor.report.pdf.make_pdf = make_pdf
    steps()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(sys.stderr):
            warm_up(Path(folder))
        for line in sys.stdin:
            pid = os.fork()
            if not pid:
                child(json.loads(line), folder)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            told = {}
            for name in ("stdout", "stderr"):
                told[name] = ""
                with contextlib.suppress(FileNotFoundError):
                    told[name] = Path(folder, name).read_text()
            sys.stdout.write(json.dumps({"code": status, **told}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
