"""`verify` against a bare client loop over the same service, and the memory that many answers take.

    .venv/bin/python benchmarks/endpoint.py speed   [--requests 400] [--service-ms 0 50]   -> results/endpoint.jsonl
    .venv/bin/python benchmarks/endpoint.py servers [--requests 300]                       -> results/endpoint.jsonl
    .venv/bin/python benchmarks/endpoint.py memory  [--answers 1000 10000 100000]          -> results/endpoint.jsonl
    .venv/bin/python benchmarks/endpoint.py render                                         -> endpoint.md

Services are processes of their own (endpoint_services.py). The bare loop sends the same questions with `requests`, or
with `--client httpx` where that is installed, one session per thread, and parses each answer; it keeps nothing. What is
compared with it is the asking of `verify` - the transcript is on disk, hash-chained and fsynced, before the next
question leaves - and all of `verify` up to `results.json`, or with `--report` up to the signed manifest without the
PDF. Both alternate, and the median ratio of the rounds counts.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import endpoint_services as services  # noqa: E402
from endpoint_services import Body, Service  # noqa: E402

KEPT = ROOT / "benchmarks" / "results" / "endpoint.jsonl"
PAGE = ROOT / "benchmarks" / "endpoint.md"
GOAL = 1.15
OTHERS = 108
"""Shams, controls and repeats that are asked with the keys."""


def sealed(folder: Path, n_keys: int, *, side: int = 28):
    """Return a key set whose plan asks every key."""
    from cases import seal_keys, small_protocol

    from auditor.records import Design

    protocol = replace(small_protocol(n_keys=n_keys, opening_keys=n_keys), design=Design.FIXED)
    return seal_keys(folder / f"{n_keys}.npz", protocol, side=side)


@contextlib.contextmanager
def client(name: str) -> Iterator[Callable[[str, Body], Body]]:
    """Yield what posts a body as JSON and returns the JSON that comes back, over one kept connection."""
    if name == "httpx":
        import httpx

        with httpx.Client(trust_env=False, timeout=60) as session:
            yield lambda url, body: session.post(url, json=body).raise_for_status().json()
    else:
        import requests

        with requests.Session() as session:
            session.trust_env = False

            def post(url: str, body: Body) -> Body:
                response = session.post(url, json=body, timeout=60)
                response.raise_for_status()
                return response.json()

            yield post


def bare(service: Service, inputs, *, batch: int, concurrency: int, name: str) -> tuple[float, float]:
    """Return the seconds, and those of this process's CPU, that a loop without any evidence takes for the same."""
    starts: SimpleQueue[int] = SimpleQueue()
    for start in range(0, len(inputs), batch):
        starts.put(start)

    def lane() -> None:
        with client(name) as post:
            while True:
                try:
                    start = starts.get_nowait()
                except Empty:
                    return
                part = inputs[start : start + batch]
                found = post(service.url + service.predict, service.body(part))
                assert service.n_answers(found) == len(part)

    threads = [threading.Thread(target=lane) for _ in range(concurrency)]
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started_s, time.process_time() - started_cpu_s


def verified(
    service: Service, opened, folder: Path, *, batch: int, concurrency: int, report: bool
) -> tuple[float, float, float, float]:
    """Return the seconds of asking, its CPU seconds, those of all of ``verify`` up to the results or the report, and
    those that lines of the transcript took to the disk."""
    from auditor import asking, casefile
    from auditor.audit import Request, run_audit
    from auditor.evidence.signing import SigningKey
    from auditor.evidence.transcript import TranscriptWriter
    from auditor.suspects import open_suspect

    taken, written = [], []
    run, write = asking.Asking.run, TranscriptWriter._write

    def timed_write(self, data: bytes) -> None:
        started_s = time.perf_counter()
        write(self, data)
        written.append(time.perf_counter() - started_s)

    def timed(self) -> str:
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        try:
            return run(self)
        finally:
            taken.extend((time.perf_counter() - started_s, time.process_time() - started_cpu_s))

    asking.Asking.run, TranscriptWriter._write = timed, timed_write
    started_s = time.perf_counter()
    try:
        with open_suspect(
            endpoint=service.url, profile=service.profile, batch_size=batch, concurrency=concurrency
        ) as suspect:
            if report:
                casefile.verify(opened=opened, suspect=suspect, folder=folder, request=Request())
            else:
                run_audit(
                    opened=opened, suspect=suspect, folder=folder, request=Request(), clock=casefile.utc_now,
                    examiner=SigningKey.generate(),
                )  # fmt: skip
    finally:
        asking.Asking.run, TranscriptWriter._write = run, write
    return taken[0], taken[1], time.perf_counter() - started_s, sum(written)


def without_pdf() -> None:
    from auditor.errors import MissingPartError
    from auditor.report import pdf

    def no_pdf(*_, **__):
        raise MissingPartError("no PDF in this benchmark")

    pdf.make_pdf = no_pdf


def fsync_ms(folder: Path) -> float:
    """Return the median time that the disk takes for one short line."""
    taken = []
    with (folder / "probe").open("ab", buffering=0) as file:
        for _ in range(40):
            file.write(b"x" * 300)
            started_s = time.perf_counter()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - started_s) * 1000)
    return statistics.median(taken)


def speed(arguments: argparse.Namespace) -> None:
    without_pdf()
    for service_ms in arguments.service_ms:
        for scores in arguments.scores:
            with services.table(service_ms=service_ms, scores=scores) as service:
                all_speeds(service, arguments, {"service": "table", "service_ms": service_ms, "scores": scores})


def servers(arguments: argparse.Namespace) -> None:
    without_pdf()
    for name in arguments.names:
        with services.REAL[name]() as service:
            all_speeds(service, arguments, {"service": name})


def all_speeds(service: Service, arguments: argparse.Namespace, what: dict[str, object]) -> None:
    for batch in arguments.batches:
        for concurrency in arguments.concurrency:
            one_speed(service, arguments, what, batch=batch, concurrency=concurrency)


def one_speed(
    service: Service, arguments: argparse.Namespace, what: dict[str, object], *, batch: int, concurrency: int
) -> None:
    from auditor.evidence.schedule import draw_schedule

    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        opened = sealed(folder, arguments.requests * batch - OTHERS, side=service.side)
        order = [probe.index for probe in draw_schedule(opened.seal.protocol)]
        inputs = opened.keys.inputs[order]
        settings = {"batch": batch, "concurrency": concurrency}
        bare(service, inputs[: 4 * batch * concurrency], **settings, name=arguments.client)
        rounds = []
        for number in range(arguments.rounds):
            os.environ["AUDITOR_HOME"] = str(folder / "home")
            alone_s, alone_cpu_s = bare(service, inputs, **settings, name=arguments.client)
            asking_s, cpu_s, whole_s, disk_s = verified(
                service, opened, folder / f"{number}", **settings, report=arguments.report
            )
            took = {"bare_s": alone_s, "asking_s": asking_s, "verify_s": whole_s, "disk_s": disk_s}
            rounds.append(took | {"bare_cpu_s": alone_cpu_s, "asking_cpu_s": cpu_s})
        transcript = (folder / "0" / "transcript.jsonl").stat().st_size
        keep(
            {
                "what": "speed",
                **what,
                **settings,
                "client": arguments.client,
                "requests": arguments.requests,
                "answers": len(inputs),
                "report": arguments.report,
                "disk": "RAM" if arguments.folder.startswith("/dev/shm") else "disk",
                "fsync_ms": round(fsync_ms(folder), 2),
                "rounds": [{key: round(value, 3) for key, value in each.items()} for each in rounds],
                "ratio": round(statistics.median(each["asking_s"] / each["bare_s"] for each in rounds), 3),
                "ratio_whole": round(statistics.median(each["verify_s"] / each["bare_s"] for each in rounds), 3),
                "ratio_cpu": round(statistics.median(r["asking_cpu_s"] / r["bare_cpu_s"] for r in rounds), 3),
                "transcript_bytes_per_answer": round(transcript / len(inputs), 1),
            }
        )


def memory(arguments: argparse.Namespace) -> None:
    for scores in arguments.scores:
        for n_answers in arguments.answers:
            command = [sys.executable, __file__, "one-memory", "--answers", str(n_answers), "--scores", str(scores)]
            command += ["--folder", arguments.folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            keep(json.loads(done.stdout.splitlines()[-1]))


def one_memory(arguments: argparse.Namespace) -> None:
    """Ask so many questions in this process and print its peak memory before and after.

    A plan holds at most 20,000 keys, so that the rest are repeats: the asking layer does not tell them apart.
    """
    from auditor.asking import Asking, Plan
    from auditor.evidence.transcript import TranscriptWriter
    from auditor.issued import Issued
    from auditor.lanes import Lanes
    from auditor.records import Silent
    from auditor.suspects import open_suspect

    (n_answers,), (scores,) = arguments.answers, arguments.scores
    with (
        services.table(scores=scores) as service,
        tempfile.TemporaryDirectory(dir=arguments.folder) as name,
        open_suspect(endpoint=service.url, batch_size=64, concurrency=4) as suspect,
    ):
        folder = Path(name)
        opened = sealed(folder, 900)
        (folder / "a" / "raw").mkdir(parents=True)
        writer = TranscriptWriter(folder / "a" / "transcript.jsonl", lambda: datetime.now(UTC))
        writer.opened({})
        plan = Plan(alpha=1e-6, max_keys=900, deviations=())
        suspect.describe()
        asking = Asking(
            opened=opened, suspect=suspect, writer=writer, folder=folder / "a", plan=plan, progress=Silent()
        )
        asking._lanes = Lanes(suspect)
        # The planned questions over and over, at ever later places in the order.
        asking._planned = _Repeated(asking._planned, n_answers)
        asking.replies = Issued(asking._planned, folder=folder / "a")
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started_s = time.perf_counter()
        assert asking._converse(lambda: asking._next(n_answers, size=64))
        seconds = time.perf_counter() - started_s
        after_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        asking._lanes.close()
        writer.closed("decided")
        size = (folder / "a" / "transcript.jsonl").stat().st_size
        assert len(asking.replies) == n_answers
        for reply in asking.replies:
            assert reply.answer is not None
            assert len(reply.answer.scores or ()) == scores
    print(
        json.dumps(
            {
                "what": "memory",
                "answers": n_answers,
                "scores": scores,
                "before_mb": round(before_kb / 1024, 1),
                "peak_mb": round(after_kb / 1024, 1),
                "seconds": round(seconds, 1),
                "transcript_mb": round(size / 1e6, 2),
            }
        )
    )


class _Repeated:
    """A plan that goes on with its own questions, made as they are asked."""

    def __init__(self, planned, n_total: int) -> None:
        self._planned = planned
        self._n_total = n_total

    def __getitem__(self, part: slice | int):
        if isinstance(part, int):
            return replace(self._planned[part % len(self._planned)], position=part)
        return tuple(self[place] for place in range(*part.indices(self._n_total)))


def keep(row: dict[str, object]) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    load = round(os.getloadavg()[0], 1)
    whole = {**row, "command": " ".join(sys.argv[1:]), "commit": commit.stdout.strip()[:12], "machine": machine}
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with KEPT.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**whole, "load": load}) + "\n")
    print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("speed", "servers", "memory", "one-memory", "render"))
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--service-ms", type=float, nargs="+", default=[0.0, 50.0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--scores", type=int, nargs="+", default=[0], help="scores in each answer; 0 is a label alone")
    parser.add_argument("--names", nargs="+", choices=tuple(services.REAL), default=list(services.REAL))
    parser.add_argument("--client", choices=("requests", "httpx"), default="requests", help="what the bare loop uses")
    parser.add_argument("--answers", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--report", action="store_true", help="all of verify but the PDF, not only up to the results")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where evidence is written; its disk counts")
    arguments = parser.parse_args()
    work = {"speed": speed, "servers": servers, "memory": memory, "one-memory": one_memory}
    if arguments.command == "render":
        from endpoint_render import page

        PAGE.write_text(page([json.loads(line) for line in KEPT.read_text().splitlines()]), encoding="utf-8")
    else:
        work[arguments.command](arguments)


if __name__ == "__main__":
    main()
