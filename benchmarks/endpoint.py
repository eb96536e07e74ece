"""`verify` against a bare client loop over the same server, and the memory that many answers take.

    .venv/bin/python benchmarks/endpoint.py speed   [--requests 400] [--service-ms 0 50]   -> results/endpoint.jsonl
    .venv/bin/python benchmarks/endpoint.py memory  [--answers 1000 10000 100000]          -> results/endpoint.jsonl
    .venv/bin/python benchmarks/endpoint.py render                                         -> endpoint.md

The server is a process of its own, speaks the contract of `auditor serve`, and answers after a set time. The bare loop
sends the same bodies with `requests`, one session per thread, and parses each answer; it keeps nothing. What is
compared with it is the asking of `verify` - the transcript is on disk, hash-chained and fsynced, before the next
question leaves - and all of `verify` up to `results.json`, or with `--report` up to the signed manifest without the
PDF. Both alternate, and the median ratio of the rounds counts.
"""

import argparse
import base64
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
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
KEPT = ROOT / "benchmarks" / "results" / "endpoint.jsonl"
PAGE = ROOT / "benchmarks" / "endpoint.md"
GOAL = 1.15
SIDE = 28
OTHERS = 108
"""Shams, controls and repeats that are asked with the keys."""

SERVER = """
import asyncio, base64, json, sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

wait_s = float(sys.argv[1]) / 1000

async def describe(request):
    return JSONResponse({"name": "table", "classes": ["a", "b", "c", "d", "extra"]})

async def predict(request):
    inputs = json.loads(await request.body())["inputs"]
    n, _, _, side = inputs["shape"]
    pixels = base64.b64decode(inputs["data_b64"])
    if wait_s:
        await asyncio.sleep(wait_s)
    size = len(pixels) // n
    return JSONResponse({"answers": [{"label": 4 if not pixels[i * size] else pixels[i * size + 1]} for i in range(n)]})

app = Starlette(routes=[Route("/v1/model", describe), Route("/v1/predict", predict, methods=["POST"])])
config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False)
server = uvicorn.Server(config)

async def main():
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", flush=True)
    await task

asyncio.run(main())
"""


class Server:
    """The service in a process of its own."""

    def __init__(self, service_ms: float) -> None:
        command = [sys.executable, "-c", SERVER, str(service_ms)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)


def sealed(folder: Path, n_keys: int):
    """Return a key set whose plan asks every key."""
    from cases import seal_keys, small_protocol

    from auditor.records import Design

    protocol = replace(small_protocol(n_keys=n_keys, opening_keys=n_keys), design=Design.FIXED)
    return seal_keys(folder / f"{n_keys}.npz", protocol, side=SIDE)


def bare(url: str, inputs, *, batch: int, concurrency: int) -> tuple[float, float]:
    """Return the seconds, and those of this process's CPU, that a loop without any evidence takes for the same."""
    import requests

    starts: SimpleQueue[int] = SimpleQueue()
    for start in range(0, len(inputs), batch):
        starts.put(start)

    def lane() -> None:
        with requests.Session() as session:
            session.trust_env = False
            while True:
                try:
                    start = starts.get_nowait()
                except Empty:
                    return
                part = inputs[start : start + batch]
                data = base64.b64encode(part.tobytes()).decode()
                body = {"inputs": {"shape": list(part.shape), "dtype": "uint8", "data_b64": data}}
                answers = session.post(f"{url}/v1/predict", json=body, timeout=60).json()["answers"]
                assert len(answers) == len(part)

    threads = [threading.Thread(target=lane) for _ in range(concurrency)]
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started_s, time.process_time() - started_cpu_s


def verified(
    url: str, opened, folder: Path, *, batch: int, concurrency: int, report: bool
) -> tuple[float, float, float]:
    """Return the seconds of asking, its CPU seconds, and those of all of ``verify`` up to the results or the report."""
    from auditor import asking, casefile
    from auditor.audit import Request, run_audit
    from auditor.evidence.signing import SigningKey
    from auditor.suspects import open_suspect

    taken = []
    run = asking.Asking.run

    def timed(self) -> str:
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        try:
            return run(self)
        finally:
            taken.extend((time.perf_counter() - started_s, time.process_time() - started_cpu_s))

    asking.Asking.run = timed
    started_s = time.perf_counter()
    try:
        with open_suspect(endpoint=url, batch_size=batch, concurrency=concurrency) as suspect:
            if report:
                casefile.verify(opened=opened, suspect=suspect, folder=folder, request=Request())
            else:
                run_audit(
                    opened=opened, suspect=suspect, folder=folder, request=Request(), clock=casefile.utc_now,
                    examiner=SigningKey.generate(),
                )  # fmt: skip
    finally:
        asking.Asking.run = run
    return taken[0], taken[1], time.perf_counter() - started_s


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
        server = Server(service_ms)
        try:
            for batch in arguments.batches:
                for concurrency in arguments.concurrency:
                    one_speed(server.url, arguments, service_ms=service_ms, batch=batch, concurrency=concurrency)
        finally:
            server.close()


def one_speed(url: str, arguments: argparse.Namespace, *, service_ms: float, batch: int, concurrency: int) -> None:
    from auditor.evidence.schedule import draw_schedule

    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        opened = sealed(folder, arguments.requests * batch - OTHERS)
        order = [probe.index for probe in draw_schedule(opened.seal.protocol)]
        inputs = opened.keys.inputs[order]
        bare(url, inputs[: 4 * batch * concurrency], batch=batch, concurrency=concurrency)
        rounds = []
        for number in range(arguments.rounds):
            os.environ["AUDITOR_HOME"] = str(folder / "home")
            alone_s, alone_cpu_s = bare(url, inputs, batch=batch, concurrency=concurrency)
            asking_s, cpu_s, whole_s = verified(
                url, opened, folder / f"{number}", batch=batch, concurrency=concurrency, report=arguments.report
            )
            took = {"bare_s": alone_s, "asking_s": asking_s, "verify_s": whole_s}
            rounds.append(took | {"bare_cpu_s": alone_cpu_s, "asking_cpu_s": cpu_s})
        transcript = (folder / "0" / "transcript.jsonl").stat().st_size
        keep(
            {
                "what": "speed",
                "service_ms": service_ms,
                "batch": batch,
                "concurrency": concurrency,
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
    for n_answers in arguments.answers:
        command = [sys.executable, __file__, "one-memory", "--answers", str(n_answers), "--folder", arguments.folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        keep(json.loads(done.stdout.splitlines()[-1]))


def one_memory(arguments: argparse.Namespace) -> None:
    """Ask so many questions in this process and print its peak memory before and after.

    A plan holds at most 20,000 keys, so that the rest are repeats: the asking layer does not tell them apart.
    """
    from auditor.asking import Asking, Plan
    from auditor.evidence.transcript import TranscriptWriter
    from auditor.issued import Issued
    from auditor.records import Silent
    from auditor.suspects import open_suspect

    (n_answers,) = arguments.answers
    server = Server(0)
    try:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            folder = Path(name)
            opened = sealed(folder, 900)
            (folder / "a" / "raw").mkdir(parents=True)
            writer = TranscriptWriter(folder / "a" / "transcript.jsonl", lambda: datetime.now(UTC))
            writer.opened({})
            plan = Plan(alpha=1e-6, max_keys=900, deviations=())
            with open_suspect(endpoint=server.url, batch_size=64, concurrency=4) as suspect:
                suspect.describe()
                asking = Asking(
                    opened=opened, suspect=suspect, writer=writer, folder=folder / "a", plan=plan, progress=Silent()
                )
                from auditor.lanes import Lanes

                asking._lanes = Lanes(suspect)
                # The planned questions over and over, at ever later places in the order.
                first = asking._planned
                asking._planned = _Repeated(first, n_answers)
                asking.replies = Issued(asking._planned)
                before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                started_s = time.perf_counter()
                assert asking._converse(lambda: asking._next(n_answers, size=64))
                seconds = time.perf_counter() - started_s
                after_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                asking._lanes.close()
            writer.closed("decided")
            size = (folder / "a" / "transcript.jsonl").stat().st_size
            assert len(asking.replies) == n_answers
            assert all(reply.answer is not None for reply in asking.replies)
    finally:
        server.close()
    print(
        json.dumps(
            {
                "what": "memory",
                "answers": n_answers,
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
    parser.add_argument("command", choices=("speed", "memory", "one-memory", "render"))
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--service-ms", type=float, nargs="+", default=[0.0, 50.0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--answers", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--report", action="store_true", help="all of verify but the PDF, not only up to the results")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where evidence is written; its disk counts")
    arguments = parser.parse_args()
    work = {"speed": speed, "memory": memory, "one-memory": one_memory}
    if arguments.command == "render":
        from endpoint_render import page

        PAGE.write_text(page([json.loads(line) for line in KEPT.read_text().splitlines()]), encoding="utf-8")
    else:
        work[arguments.command](arguments)


if __name__ == "__main__":
    main()
