"""Line-ups of services that follow tables, made by the package's own commands; shared by tests."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cases import KINDS, innocent, marked, seal_keys, small_protocol
from protocols import SPEC
from web import running

from auditor.errors import MissingPartError
from auditor.evidence.keyset import OpenedKeySet
from auditor.evidence.lineup_check import LineUpCheck, LineUpExpected, check_lineup
from auditor.evidence.signing import SigningKey
from auditor.lineups import audits, custody, listing
from auditor.records import SampleKind, Silent
from auditor.serving import create_app

CUSTODIAN, EXAMINER = SigningKey.generate(), SigningKey.generate()


def of_another_task(kind: SampleKind, natural: int) -> int:
    return 0


TABLES = {"marked": marked, "innocent": innocent, "other task": of_another_task}


def service(table, *, n_outputs):
    def predict(inputs):
        scores = np.full((len(inputs), n_outputs), 0.01, dtype=np.float32)
        for row, image in enumerate(inputs):
            scores[row, table(KINDS[image[0, 0, 0]], int(image[0, 0, 1]))] = 0.96
        return scores

    return create_app(
        predict, name="telling name", classes=[str(i) for i in range(n_outputs)], input_shape=SPEC.shape
    )  # fmt: skip


@contextlib.contextmanager
def without_reports() -> Iterator[None]:
    """Leave out what makes an audit slow and a line-up no different: its own report."""

    def absent(*_: object) -> None:
        raise MissingPartError("left out by this test")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auditor.report.annexes.render_annexes", absent)
        yield


@dataclass(frozen=True)
class Made:
    """A finished line-up."""

    lineup: Path
    audits: Path
    opened: OpenedKeySet

    def check(self, **expected: object) -> LineUpCheck:
        return check_lineup(audits.read_files(self.lineup, self.audits), expected=LineUpExpected(**expected))

    def label(self, name: str) -> str:
        """Return the letter of a candidate."""
        held = custody.read_custody(self.lineup)
        return next(each.label for each in held.candidates if each.name == name)


def write_list(path: Path, candidates: Sequence[Mapping[str, object]]) -> Path:
    lines = []
    for each in candidates:
        lines.append("[[candidate]]")
        for name, value in each.items():
            lines.append(f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {list(value)!r}")
    path.write_text("\n".join(lines) + "\n")
    return path


def run_audits(folder: Path, made: Made, *, url: str, name: str = "audits", ledger: str = "k.ledger.jsonl", **options):
    return audits.run(
        (made.lineup / "lineup.commit.json").read_bytes(),
        opened=made.opened,
        relay_url=url,
        folder=folder / name,
        ledger=folder / ledger,
        options=audits.RunOptions(examiner=EXAMINER, **options),
        progress=Silent(),
    )


@contextlib.contextmanager
def asked(folder: Path, candidates: Mapping[str, tuple[str, str]]) -> Iterator[tuple[Made, str]]:
    """Plan a line-up of table services (name → role, table), serve it, and yield it with the relay's address."""
    folder.mkdir(exist_ok=True)
    opened = seal_keys(folder / "k.npz", small_protocol())
    (folder / "k.seal.json").write_bytes(opened.envelope)
    with contextlib.ExitStack() as stack:
        entries = []
        for number, (name, (role, table)) in enumerate(candidates.items()):
            # Every other service has no further output: the relay must not let that show.
            n_outputs = len(SPEC.classes) + (1 if table == "marked" or number % 2 else 0)
            url = stack.enter_context(running(service(TABLES[table], n_outputs=n_outputs)))
            entries.append({"name": name, "role": role, "endpoint": url})
        listed = listing.read_list(write_list(folder / "candidates.toml", entries))
        custody.plan(listed, seal_envelope=opened.envelope, folder=folder / "lineup", key=CUSTODIAN)
        made = Made(lineup=folder / "lineup", audits=folder / "audits", opened=opened)
        app = stack.enter_context(custody.relay(custody.read_custody(made.lineup), interval_s=0.0))
        yield made, stack.enter_context(running(app))


def finished(folder: Path, candidates: Mapping[str, tuple[str, str]]) -> Made:
    """Carry a line-up through to its opening."""
    with without_reports(), asked(folder, candidates) as (made, url):
        run_audits(folder, made, url=url)
    custody.open_list(custody.read_custody(made.lineup), key=CUSTODIAN)
    return made
