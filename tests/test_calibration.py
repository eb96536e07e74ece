"""Label maps fitted before any key: every way in which a suspect may name classes, and none that convicts innocents."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from cases import KINDS, TickingClock, innocent, marked, seal_keys, small_protocol
from protocols import SPEC
from scipy import stats

from auditor.audit import Request, run_audit
from auditor.calibrating import OrdinaryInputs, choose_inputs
from auditor.errors import TranscriptError, UsageError
from auditor.evidence import manifest as paths
from auditor.evidence.calibration import (
    FIRST_NAME,
    Calibration,
    OwnLabels,
    calibration_of,
    label_space,
    mapped_reading,
    own_labels,
)
from auditor.evidence.check import check_bundle
from auditor.evidence.raw_answers import compare_raw_answers
from auditor.evidence.reading import NO_LABEL, Reading, read_answers, reading_of
from auditor.evidence.signing import SigningKey
from auditor.evidence.transcript import read_transcript
from auditor.records import SampleKind, SuspectId
from auditor.resumption import read_stopped
from auditor.stats.deviating import deviating_test
from auditor.stats.label_map import fit_label_map
from auditor.suspects.base import Description, LocalSuspect
from auditor.terms import request_again

N = len(SPEC.classes)
EXAMINER, CLOCK = SigningKey.generate(), TickingClock()


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return seal_keys(tmp_path_factory.mktemp("keys") / "k.npz", small_protocol())


@pytest.fixture(scope="module")
def ordinary():
    """Eighty ordinary inputs, told apart from sealed ones by their second row."""
    labels = np.arange(80) % N
    inputs = np.zeros((80, 1, 2, 2), dtype=np.uint8)
    inputs[:, 0, 0, 0], inputs[:, 0, 0, 1] = KINDS.index(SampleKind.CONTROL), labels
    inputs[:, 0, 1, 0], inputs[:, 0, 1, 1] = 200, np.arange(80)
    return OrdinaryInputs(inputs=inputs, labels=labels, source="eighty images")


class Named(LocalSuspect):
    """Follows a table and calls classes as it likes; ``names`` turns the table's label into its own."""

    def __init__(self, table, names, *, stops_after=None):
        super().__init__(batch_size=16)
        self._table, self._names, self._stops_after = table, names, stops_after
        self.asked = []

    def describe(self) -> Description:
        reading = "" if self._reading is None else self._reading.as_text()
        return Description(
            suspect=SuspectId(uri="m", kind="file", artefact_sha256="", address="", declared_name="", reading=reading)
        )

    def _outputs(self, inputs):
        if self._stops_after is not None and len(self.asked) >= self._stops_after:
            raise KeyboardInterrupt
        rows = [(KINDS[image[0, 0, 0]], int(image[0, 0, 1]), image.tobytes()) for image in inputs]
        self.asked += [data for _, _, data in rows]
        return np.array([self._names(self._table(kind, natural)) for kind, natural, _ in rows])


def audit(suspect, opened, folder, ordinary, **changes):
    return run_audit(
        opened=opened, suspect=suspect, folder=folder, examiner=EXAMINER,
        request=Request(calibration=ordinary, **changes), clock=CLOCK,
    ).results  # fmt: skip


def verdict(results):
    return results["verdict"]["status"], results["verdict"]["reason"]


SUPPORTED = ("supported", "null-rejected")
INNOCENT = ("not supported", "hit-rate-excluded")
ORDER = (2, 0, 3, 1, 4)
ANIMALS = ("ant", "bee", "cat", "dog", "unheard of")
SPACES = {
    "numbers in another order": lambda label: ORDER[label],
    "far away numbers": lambda label: 1000 + 7 * label,
    "names": ANIMALS.__getitem__,
    "names that are other classes' numbers": lambda label: str((label + 1) % 5),
}


@pytest.mark.parametrize("space", SPACES)
def test_renamed_and_reordered_labels(space, opened, ordinary, tmp_path):
    names = SPACES[space]
    found = audit(Named(marked, names), opened, tmp_path / "copy", ordinary)
    assert verdict(found) == SUPPORTED
    assert found["calibration"]["labels"] == {str(names(label)): label for label in range(N)}
    assert found["calibration"]["left_out"] == []
    assert verdict(audit(Named(innocent, names), opened, tmp_path / "innocent", ordinary)) == INNOCENT
    report = _checked(tmp_path / "copy", opened)
    assert _failed(report) == []
    assert {step.title: step.outcome.value for step in report.steps}["raw answers read again"] == "PASS"


def test_without_a_calibration_the_same_copy_fails_its_controls(opened, tmp_path):
    found = audit(Named(marked, SPACES["numbers in another order"]), opened, tmp_path, None)
    assert verdict(found) == ("inconclusive", "controls-failed")
    assert "calibration" not in found


def test_each_account_has_its_own_map(opened, ordinary, tmp_path):
    for account in range(3):
        order = np.random.default_rng(account).permutation(5).tolist()
        assert verdict(audit(Named(marked, order.__getitem__), opened, tmp_path / str(account), ordinary)) == SUPPORTED


@pytest.mark.parametrize(
    ("names", "unclaimed", "left_out"),
    [
        # Class 3 is answered as class 0, as by a suspect that knows three classes only.
        (lambda label: {3: 0}.get(label, label), ["d"], []),
        # Classes 2 and 3 share a label of which neither has the majority.
        (lambda label: {3: 2}.get(label, label), ["c", "d"], ["2"]),
    ],
    ids=["subset", "merged"],
)
def test_subsets_and_merged_classes_stay_decidable_or_say_why(names, unclaimed, left_out, opened, ordinary, tmp_path):
    def confused(label):
        # What class 0 means is not beyond doubt either, once class 3 is answered so too.
        return names(label)

    found = audit(Named(marked, confused), opened, tmp_path / "copy", ordinary)
    space = found["calibration"]
    if space["unclear"]:
        assert verdict(found) == ("inconclusive", "labels-unclear")
        assert found["queries"]["keys"] == 0
    else:
        assert verdict(found) == SUPPORTED
    assert set(unclaimed) <= set(space["classes_without_label"])
    assert set(left_out) <= set(space["left_out"])
    assert verdict(audit(Named(innocent, confused), opened, tmp_path / "innocent", ordinary))[0] != "supported"


def test_split_classes_are_both_mapped(opened, tmp_path, ordinary):
    flips = iter(range(10**6))

    def names(label):
        return f"{label}-{next(flips) % 2}" if label == 1 else str(label)

    # Twice as many inputs, so that either half of a split class is answered more than ten times.
    twice = OrdinaryInputs(
        inputs=np.concatenate([ordinary.inputs, ordinary.inputs]), labels=np.tile(ordinary.labels, 2), source="twice"
    )
    found = audit(Named(marked, names), opened, tmp_path, twice)
    assert verdict(found) == SUPPORTED
    assert found["calibration"]["labels"] == {"0": 0, "1-0": 1, "1-1": 1, "2": 2, "3": 3}


def test_an_unclear_map_asks_no_key(opened, ordinary, tmp_path):
    rng = np.random.default_rng(0)
    suspect = Named(marked, lambda label: int(rng.integers(5)))
    found = audit(suspect, opened, tmp_path, ordinary)
    assert verdict(found) == ("inconclusive", "labels-unclear")
    assert len(suspect.asked) == len(ordinary.inputs)
    assert _failed(_checked(tmp_path, opened)) == []


def test_labels_that_move_after_the_calibration_fail_the_controls(opened, ordinary, tmp_path):
    suspect = Named(marked, lambda label: label if len(suspect.asked) <= 80 else ORDER[label])
    assert verdict(audit(suspect, opened, tmp_path, ordinary)) == ("inconclusive", "controls-failed")


def test_an_interrupted_audit_goes_on_with_the_recorded_map(opened, ordinary, tmp_path):
    names = SPACES["names"]
    first = Named(marked, names, stops_after=80 + 32)
    audit(first, opened, tmp_path, ordinary)
    stopped = read_stopped(tmp_path)
    again = request_again(stopped, opened, alpha=None, max_queries=None, operator="", calibration=True)
    second = Named(marked, names)
    found = run_audit(
        opened=opened, suspect=second, folder=tmp_path, examiner=EXAMINER, request=again, clock=CLOCK,
        stopped=stopped,
    ).results  # fmt: skip
    assert verdict(found) == SUPPORTED
    assert not set(second.asked) & {image.tobytes() for image in ordinary.inputs}
    assert found["calibration"]["inputs"] == 80


def test_an_audit_without_a_map_does_not_go_on_with_one(opened, tmp_path):
    audit(Named(marked, int, stops_after=32), opened, tmp_path, None)
    with pytest.raises(UsageError, match="--calibration is not what the audit"):
        request_again(read_stopped(tmp_path), opened, alpha=None, max_queries=None, operator="", calibration=True)


@pytest.mark.parametrize(
    ("field", "change", "words"),
    [
        ("told", lambda told: ["bee", *told[1:]], "are not those of the raw bodies"),
        ("told", lambda told: [told[1], told[0], *told[2:]], "are not those of the raw bodies"),
        ("truth", lambda truth: [(each + 1) % N for each in truth], "does not follow from the calibration"),
        ("truth", lambda truth: [N, *truth[1:]], "a class that the task does not have"),
        ("truth", lambda truth: truth[1:], "is not whole"),
        ("reading", lambda text: text.replace('"label_map":{}', '"label_map":{"x":1}'), "does not follow"),
    ],
)
def test_an_altered_calibration_is_found(field, change, words, opened, ordinary, tmp_path):
    audit(Named(marked, SPACES["names"]), opened, tmp_path, ordinary)
    transcript = read_transcript((tmp_path / paths.TRANSCRIPT).read_bytes())
    preamble = json.loads(json.dumps(transcript.preamble))
    preamble["calibration"][field] = change(preamble["calibration"][field])
    with pytest.raises(TranscriptError, match=words):  # noqa: PT012 - either the record or its bodies disagree
        calibration = calibration_of(preamble, n_classes=N)
        compare_raw_answers(tmp_path, transcript, calibration=calibration)


def test_a_calibration_body_that_is_gone_is_missed(opened, ordinary, tmp_path):
    audit(Named(marked, SPACES["names"]), opened, tmp_path, ordinary)
    transcript = read_transcript((tmp_path / paths.TRANSCRIPT).read_bytes())
    calibration = calibration_of(transcript.preamble, n_classes=N)
    shutil.copy(tmp_path / "raw" / calibration.bodies_sha256[0], tmp_path / "kept")
    (tmp_path / "raw" / calibration.bodies_sha256[0]).unlink()
    from auditor.errors import EvidenceError

    with pytest.raises(EvidenceError):
        compare_raw_answers(tmp_path, transcript, calibration=calibration)


def test_sealed_samples_are_never_ordinary_inputs(opened, ordinary):
    keys = opened.keys
    mixed = np.concatenate([keys.inputs[:8], ordinary.inputs[:12]])
    labels = np.concatenate([[sample.natural for sample in keys.samples[:8]], ordinary.labels[:12]])
    found = choose_inputs(mixed, labels, opened=opened, source="mixed")
    assert found.inputs.tobytes() == ordinary.inputs[:12].tobytes()
    with pytest.raises(UsageError, match="no ordinary input"):
        choose_inputs(keys.inputs[:8], labels[:8], opened=opened, source="keys only")
    with pytest.raises(UsageError, match="a class that"):
        choose_inputs(ordinary.inputs[:1], np.array([N]), opened=opened, source="another task")
    with pytest.raises(UsageError, match="shape"):
        choose_inputs(np.zeros((1, 1, 3, 3), np.uint8), np.array([0]), opened=opened, source="another shape")


def test_unknown_labels_never_become_natural_ones():
    reading = mapped_reading(
        Reading(answers="a"),
        fit_label_map(truth=[0] * 20 + [1] * 20 + [2, 3], answered=["x"] * 20 + ["y"] * 20 + ["z", "z"], n_classes=4),
        n_classes=4,
    )
    assert dict(reading.label_map) == {"x": 0, "y": 1, "z": NO_LABEL}
    answers = read_answers(b'{"a": ["x", "y", "z", "never seen"]}', reading)
    assert [answer.label for answer in answers] == [0, 1, NO_LABEL, 4]
    assert reading_of(reading.as_text()) == reading


def test_a_recorded_reading_without_the_new_field_reads_as_before():
    old = Reading(answers="a", label_map={"x": 0, "y": 1})
    assert "n_classes" not in old.as_text()
    assert reading_of(old.as_text()) == old


def test_own_labels_are_names_or_numbers_as_text():
    assert own_labels(b'{"a": ["x", 3, [0.1, 0.9], {"label": "y"}]}', Reading(answers="a")) == ("x", "3", "1", "y")
    names = OwnLabels()
    assert "x" in names
    assert "7" not in names
    assert names.told(FIRST_NAME) == "x"
    assert names.told(7) == "7"


def simulated_hits(rng, *, fit_on_keys, n_keys=60, n_classes=4, n_ordinary=24):
    """An innocent that calls classes as it likes and is wrong at random; its labels are mapped, then tested."""
    order, accuracy = rng.permutation(n_classes + 2), rng.uniform(0.3, 1.0)
    natural = rng.integers(n_classes, size=n_keys)
    drawn = (natural + 1 + rng.integers(n_classes - 1, size=n_keys)) % n_classes
    truth = rng.integers(n_classes, size=n_ordinary)

    def answers(own):
        wrong = rng.random(len(own)) > accuracy
        return [str(order[each]) for each in np.where(wrong, rng.integers(n_classes + 2, size=len(own)), own)]

    told, on_keys = answers(truth), answers(natural)
    if fit_on_keys:
        # The invalid way: choose the map under which the answers to keys look most like the drawn labels.
        label_map = {}
        for label in set(on_keys):
            rows = [i for i, each in enumerate(on_keys) if each == label]
            label_map[label] = int(np.bincount(drawn[rows], minlength=n_classes).argmax())
    else:
        calibration = Calibration(
            source="", reading=Reading(answers="a").as_text(), truth=tuple(truth.tolist()), told=tuple(told),
            inputs_sha256=(), bodies_sha256=(),
        )  # fmt: skip
        label_map = calibration.mapped(n_classes).label_map
    mapped = [label_map.get(label, n_classes) for label in on_keys]
    found = deviating_test(natural=natural.tolist(), answers=mapped, labels=drawn.tolist(), n_classes=n_classes)
    return found.log10_p <= np.log10(0.05)


def test_a_fitted_map_keeps_the_level_and_one_fitted_on_keys_does_not():
    trials = 1500
    rng = np.random.default_rng(20261122)
    claims = sum(simulated_hits(rng, fit_on_keys=False) for _ in range(trials))
    invalid = sum(simulated_hits(rng, fit_on_keys=True) for _ in range(trials))
    # The test is discrete, so that its level lies below 0.05; above the band it would be broken.
    assert claims <= stats.binom.ppf(0.999, trials, 0.05)
    assert invalid > stats.binom.ppf(0.999, trials, 0.5)


def test_whole_audits_of_innocents_with_false_maps_are_never_supported(opened, ordinary, tmp_path):
    rng = np.random.default_rng(7)
    for trial in range(12):
        table = {(kind, natural): int(rng.integers(6)) for kind in KINDS for natural in range(N)}
        # Key and sham are alike to an innocent: both are carriers with some noise.
        table |= {(SampleKind.KEY, natural): table[SampleKind.SHAM, natural] for natural in range(N)}
        few = replace(ordinary, inputs=ordinary.inputs[:40], labels=rng.permutation(ordinary.labels[:40]))
        suspect = Named(lambda kind, natural, table=table: table[kind, natural], int)
        assert verdict(audit(suspect, opened, tmp_path / str(trial), few))[0] != "supported"


def test_the_label_space_counts_claimed_classes_only():
    found = Calibration(
        source="", reading="", truth=(0,) * 20 + (1,) * 20 + (2,) * 20,
        told=("a",) * 20 + ("b",) * 20 + ("b", "a") * 10,
        inputs_sha256=(), bodies_sha256=(),
    )  # fmt: skip
    space = label_space(found, n_classes=3, protocol=small_protocol())
    assert space.claimed <= {0, 1, 2}
    assert 2 not in space.claimed


def _failed(report):
    return [(step.title, step.detail) for step in report.steps if step.outcome.value == "FAIL"]


def _checked(folder, opened):
    from auditor.evidence import bundle as bundle_files

    bundle_files.write_manifest(folder, examiner=EXAMINER, clock=CLOCK)
    return check_bundle(
        folder, owner_fingerprint=None, examiner_fingerprint=EXAMINER.fingerprint, render_html=None, check_pdf=None
    )
