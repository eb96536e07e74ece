"""Seals 100,000 samples of 28 × 28 and opens one with its audit path: time of every step and peak memory.

    .venv/bin/python benchmarks/seal.py [--samples 100000] [--seed 0] [--write]

With --write the figures go to benchmarks/results/seal.json and the page benchmarks/seal.md is made from them.
Everything runs in this one process, so the peak is that of the whole work, interpreter and libraries included.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "evidence")]
RESULTS = ROOT / "benchmarks" / "results" / "seal.json"
PAGE = ROOT / "benchmarks" / "seal.md"
SIDE = 28
T = TypeVar("T")


def peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024), 1)


def measure(n_samples: int, seed: int) -> dict[str, object]:
    import bundles
    import protocols

    from auditor.evidence.keyset import KeySet, open_sealed, write_sealed
    from auditor.evidence.openings import read_openings, verify_opening, write_openings
    from auditor.evidence.seal import MAX_KEYS, sign_seal
    from auditor.evidence.signing import SigningKey

    # A protocol may hold at most MAX_KEYS keys; shams and controls are sealed, salted and opened the same way.
    n_keys = min(MAX_KEYS, n_samples - 2)
    protocol = bundles.small_protocol(
        n_keys=n_keys,
        opening_keys=min(1000, n_keys),
        n_shams=n_samples - n_keys - 1,
        n_sham_patterns=1,
        n_controls=1,
    )
    keys: KeySet = bundles.a_keyset(protocol, seed=seed, spec=replace(protocols.SPEC, shape=(1, SIDE, SIDE)))
    steps: list[dict[str, object]] = []
    before_mb = peak_mb()

    def step(what: str, work: Callable[[], T]) -> T:
        start, cpu_start = time.perf_counter(), time.process_time()
        result = work()
        taken, cpu = time.perf_counter() - start, time.process_time() - cpu_start
        steps.append({"what": what, "seconds": round(taken, 3), "cpu_seconds": round(cpu, 3), "peak_mb": peak_mb()})
        return result

    owner = SigningKey.generate()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "k.npz"
        step("salted leaves and Merkle root", keys.root)
        seal = step("seal: root, digest of the payload, statement", lambda: bundles.a_seal(keys, owner, protocol))
        envelope = step("signature", lambda: sign_seal(seal, owner))
        step("sealed file written", lambda: write_sealed(path, keys=keys, seal_envelope=envelope))
        size_bytes = path.stat().st_size
        opened = step("sealed file read and checked against the seal", lambda: open_sealed(path))
        index = seed % n_samples
        opening = step("one sample opened with its audit path", lambda: opened.keys.opening(index))
        disclosed = write_openings([opening], seal=seal)

        def check_one() -> None:
            (found,) = read_openings(disclosed, seal=seal).values()
            verify_opening(found, seal=seal)

        step("that opening verified under the sealed root", check_one)
    return {
        "samples": n_samples,
        "keys_among_them": n_keys,
        "side": SIDE,
        "seed": seed,
        "file_bytes": size_bytes,
        "seal_bytes": len(envelope),
        "opening_bytes": len(disclosed),
        "audit_path_hashes": len(opening.path),
        "before_mb": before_mb,
        "peak_mb": peak_mb(),
        "steps": steps,
    }


def page(record: dict) -> str:
    found = record["figures"]
    rows = "\n".join(
        f"| {s['what']} | {s['cpu_seconds']:.3f} | {s['seconds']:.3f} | {s['peak_mb']:.0f} |" for s in found["steps"]
    )
    return f"""# Sealing many samples and opening one

Made by `benchmarks/seal.py --write`; one run on {record["machine"]}, commit `{record["commit"][:12]}`, seed {found["seed"]}.

{found["samples"]:,} samples of {found["side"]} × {found["side"]} bytes are sealed, and one is opened; {found["keys_among_them"]:,} are keys, as
many as a protocol may hold, and the rest shams, which are salted, hashed and opened the same way.

| step | CPU seconds | seconds | peak MB so far |
| --- | --- | --- | --- |
{rows}

The machine was shared with other work: CPU seconds are the steadier figure. Before the first step the process, with the
samples in memory, had peaked at {found["before_mb"]:.0f} MB. The sealed file holds
{found["file_bytes"] / 1e6:.1f} MB, the published seal {found["seal_bytes"]:,} bytes. Disclosing one sample takes {found["opening_bytes"]:,} bytes, with
{found["audit_path_hashes"]} hashes of 32 bytes as its audit path; nothing else of the set is revealed.
"""  # noqa: E501


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write the JSON file and the page")
    arguments = parser.parse_args()
    figures = measure(arguments.samples, arguments.seed)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    record = {
        "commit": commit.stdout.strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "command": f"benchmarks/seal.py --samples {arguments.samples} --seed {arguments.seed} --write",
        "figures": figures,
    }
    print(page(record))
    if arguments.write:
        RESULTS.write_text(json.dumps(record, indent=2) + "\n")
        PAGE.write_text(page(record))


if __name__ == "__main__":
    main()
