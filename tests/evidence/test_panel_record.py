import json
from dataclasses import replace

import numpy as np
import pytest
from cases import TableSuspect, TickingClock, innocent, marked, seal_keys, small_protocol
from protocols import SPEC, SUSPECT
from scipy import stats

from auditor.analysis import basis_of
from auditor.audit import Request, run_audit, tighten
from auditor.canonical import canonical_bytes
from auditor.errors import MalformedError, SealError, UsageError
from auditor.evidence import bundle as bundle_files
from auditor.evidence.check import CheckOutcome, check_bundle
from auditor.evidence.panel import Panel, PanelModel, member, panel_bytes, panel_object, parse_panel
from auditor.evidence.signing import SigningKey
from auditor.records import Answer
from auditor.suspects.base import Description

EXAMINER = SigningKey.generate()


@pytest.fixture
def opened(tmp_path):
    return seal_keys(tmp_path / "k.npz", small_protocol())


def a_panel(opened, tables, **changes) -> Panel:
    basis, samples = basis_of(opened.seal.protocol, opened.seal.spec), opened.keys.samples
    models = tuple(
        PanelModel(
            name=f"m{i}", architecture="table", seed=str(i), weights_sha256=f"{i + 1:064x}",
            answers=member(basis, samples, [Answer(label=table(s.kind, s.natural)) for s in samples]),
        )
        for i, table in enumerate(tables)
    )  # fmt: skip
    return Panel(**({"keyset_id": opened.keys.keyset_id, "models": models} | changes))


def audit(opened, folder, *, panel, table=marked, suspect=None):
    return run_audit(
        opened=opened, suspect=suspect or TableSuspect(table), folder=folder, examiner=EXAMINER,
        request=Request(panel=panel), clock=TickingClock(),
    )  # fmt: skip


def test_zero_of_twenty_still_allows_fourteen_percent(opened, tmp_path):
    found = audit(opened, tmp_path / "a", panel=a_panel(opened, [innocent] * 20)).results
    panel = found["null"]["panel"]
    assert (panel["models"], panel["false_claims"], panel["keys"]) == (20, 0, 30)
    assert float(panel["upper_bound"]) == pytest.approx(1 - 0.05 ** (1 / 20))
    assert panel["sentence"].endswith("14 %")
    # The error rate of a small panel is weaker than that of 16 foreign patterns? The larger bound limits the opinion.
    bounds = {"panel": 1 - 0.05 ** (1 / 20), "patterns": 1 - 0.05 ** (1 / 16)}
    assert float(found["opinion"]["empirical"]["upper_bound"]) == pytest.approx(max(bounds.values()))


def test_a_panel_that_hits_raises_the_null_rate_of_measured_keys_and_is_counted(opened, tmp_path):
    panel = a_panel(opened, [innocent] * 4 + [marked])
    found = audit(opened, tmp_path / "a", panel=panel).results
    assert found["null"]["panel"]["false_claims"] == 1
    # One of five models hits everything: the bound of the mean rate exceeds p_min, and nothing can be claimed.
    assert float(found["null"]["rate"]) >= float(found["null"]["panel"]["mean_rate_upper"]) > 0.3
    assert found["verdict"]["reason"] == "plan-underpowered"


def test_the_basis_names_the_panel_where_its_bound_is_the_largest(opened, tmp_path):
    # 16 models without a hit allow 17 %; 80 shams without a hit allow 16.6 % at their far smaller error.
    found = audit(opened, tmp_path / "a", panel=a_panel(opened, [innocent] * 16)).results
    assert found["null"]["rate"] == found["null"]["panel"]["mean_rate_upper"]
    assert found["null"]["basis"].endswith("panel of independent models")


def test_more_models_lower_the_bound_and_none_changes_nothing(opened):
    few, many = (tighten(opened.seal.protocol, Request(panel=a_panel(opened, [innocent] * n))) for n in (5, 60))
    assert many.panel_rate < few.panel_rate == pytest.approx(1 - 0.05 ** (1 / 5))
    assert tighten(opened.seal.protocol, Request()).panel_rate == 0.0


def test_check_recomputes_the_panels_figures(opened, tmp_path):
    folder, clock = tmp_path / "a", TickingClock()
    audit(opened, folder, panel=a_panel(opened, [innocent] * 60))
    for _ in range(10_000):
        clock()
    bundle_files.write_manifest(folder, examiner=EXAMINER, clock=clock)
    report = check_bundle(folder, owner_fingerprint=None, examiner_fingerprint=None, render_html=None, check_pdf=None)
    assert report.intact
    step = next(step for step in report.steps if "panel" in step.title)
    assert step.outcome is CheckOutcome.PASS
    assert "60 models" in step.detail
    results = json.loads((folder / "results.json").read_bytes())
    assert results["verdict"]["status"] == "supported"


def test_the_record_survives_writing_and_reading_and_names_no_label(opened):
    panel = a_panel(opened, [innocent, marked])
    data = panel_bytes(panel)
    assert parse_panel(data, seal=opened.seal) == panel
    value = json.loads(data)
    assert set(value["models"][0]["keys"]) == {"m"}
    assert set(value["models"][1]["keys"]) == {"h"}
    assert set(value["models"][0]) == {"name", "architecture", "seed", "weights_sha256", "keys", "sham_hits"}


def changed(opened, **fields) -> bytes:
    value = panel_object(a_panel(opened, [innocent, marked]))
    value["models"][0].update({k: v for k, v in fields.items() if k in value["models"][0] or k == "extra"})
    value.update({k: v for k, v in fields.items() if k in value})
    return canonical_bytes(value) + b"\n"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"schema": "mlaudit.panel/2"}, MalformedError),
        ({"keyset_id": "00" * 16}, SealError),
        ({"models": []}, MalformedError),
        ({"keys": "h" * 29}, MalformedError),
        ({"keys": "x" * 30}, MalformedError),
        ({"keys": "h" * 31}, MalformedError),
        ({"weights_sha256": "00"}, MalformedError),
        ({"weights_sha256": f"{2:064x}"}, MalformedError),
        ({"sham_hits": 81}, MalformedError),
        ({"sham_hits": -1}, MalformedError),
        ({"extra": 1}, MalformedError),
    ],
)
def test_a_broken_record_is_refused(opened, fields, error):
    with pytest.raises(error):
        parse_panel(changed(opened, **fields), seal=opened.seal)
    with pytest.raises(MalformedError):
        parse_panel(b"[]\n", seal=opened.seal)


def test_suspect_and_owners_model_are_no_members(opened, tmp_path):
    class Known(TableSuspect):
        def describe(self):
            return Description(suspect=replace(SUSPECT, artefact_sha256=f"{1:064x}"), n_labels=len(SPEC.classes) + 1)

    suspect = Known(marked)
    with pytest.raises(UsageError, match="cannot be members"):
        audit(opened, tmp_path / "a", panel=a_panel(opened, [innocent]), suspect=suspect)
    assert suspect.n_batches == 0


def test_false_claims_over_independent_models_keep_the_level():
    # The exact bound printed with the panel covers the true rate in at least 95 % of panels.
    rate, models = 0.04, 30
    counts = np.arange(models + 1)
    upper = np.array([stats.beta.ppf(0.95, k + 1, models - k) if k < models else 1.0 for k in counts])
    assert stats.binom.pmf(counts, models, rate)[upper >= rate].sum() >= 0.95
