"""A screen of a key set as tables, for a terminal and for a page."""

from dataclasses import dataclass

from auditor import __version__
from auditor.report.html import stylesheet, template
from auditor.report.text import p_value
from auditor.screening.detectors import BUDGET, NEIGHBOURS, Detection, Detector
from auditor.screening.nearness import Share
from auditor.screening.screen import Screen
from auditor.stats.exact import Interval

TEMPLATE = "screen.html.j2"
NOTHING = "–"
DETECTOR_NAMES = {
    Detector.NEIGHBOURS: f"distance to the {NEIGHBOURS} nearest ordinary images",
    Detector.RECONSTRUCTION: "residual of a linear autoencoder",
    Detector.ROUGHNESS: "roughness of the image",
    Detector.CONFIDENCE: "low confidence of an innocent model",
    Detector.LEAKED: "classifier trained on leaked keys",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of a screen."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(found: Screen) -> tuple[Table, ...]:
    """Return the tables of a screen, those without a row left out."""
    every = (_keys(found), _detectors(found), _stability(found))
    return tuple(table for table in every if table.rows)


def render_page(found: Screen, *, missed: tuple[str, ...]) -> bytes:
    """Return the self-contained page of a screen; a pure function of its arguments.

    Raises:
        MissingPartError: the templates are not installed.
    """
    text = template(TEMPLATE).render(
        css=stylesheet(),
        version=__version__,
        scheme=found.material.protocol.scheme,
        keyset_id=found.material.keys.keyset_id,
        sealed=found.material.seal is not None,
        tables=tables(found),
        missed=missed,
        ordinary=found.ordinary,
        budget=f"{100 * BUDGET:g} %",
    )
    return text.encode()


def _keys(found: Screen) -> Table:
    near, capacity = found.nearness, found.capacity
    rows = [
        ("generation", "re-derived" if found.derivable else "NOT VERIFIED", found.generation),
        ("capacity", f"{capacity.bits:.1f} bits", f"drawn: {capacity.drawn}"),
        (
            "smallest p-value the plan can report",
            p_value(capacity.best_log10_p),
            f"the sealed level is {found.material.protocol.alpha:g}; it is "
            f"{'' if capacity.reaches_level else 'NOT '}within reach",
        ),
        (
            "distance to the nearest ordinary image",
            f"{near.key_distance:.1f}",
            f"median, in grey levels; {near.ordinary_distance:.1f} for ordinary images",
        ),
        ("keys farther than 95 % of ordinary images", *_share(near.far)),
        ("nearest image is of the carrier's class", *_share(near.nearest_is_natural)),
        ("nearest image is of the sealed class", *_share(near.nearest_is_sealed)),
    ]
    innocents = found.innocents
    if innocents is not None:
        measured = innocents.measured
        rows += [
            (
                "innocent models hit",
                f"{measured.mean_rate:.4f}",
                f"mean of {measured.models} models, worst {measured.worst_rate:.4f}; the mean of all such models is at "
                f"most {measured.mean_upper:.4f} at confidence {1 - measured.error:g}",
            ),
            ("keys that half of them hit", str(innocents.by_most), f"of {len(measured.keys)}"),
        ]
        if innocents.natural is not None:
            told = innocents.natural
            rows.append(("innocent answers that are natural", f"{told.hits / told.trials:.4f}", f"of {told.trials}"))
    return Table(title="Key set", columns=("measure", "found", "remark"), rows=tuple(rows))


def _detectors(found: Screen) -> Table:
    return Table(
        title=f"Detectability: keys against ordinary images ({found.ordinary.source})",
        columns=(
            "detector",
            "keys given",
            "area",
            "DeLong 95 %",
            "exact 95 %",
            f"keys refused at {100 * BUDGET:g} %",
            "ordinary refused",
        ),
        rows=tuple(_detector_row(each) for each in found.detections),
    )


def _detector_row(each: Detection) -> tuple[str, ...]:
    budget = each.budget
    refused = NOTHING
    if budget is not None:
        refused = f"{budget.hits} of {budget.trials} ({_interval(budget.interval)})"
    side = " (low side)" if each.low_side else ""
    return (
        DETECTOR_NAMES[each.detector] + side,
        str(each.leaked),
        f"{each.area.area:.3f}",
        _interval(each.area.delong),
        _interval(each.area.exact),
        refused,
        NOTHING if budget is None else f"{budget.false_hits} of {budget.false_trials}",
    )


def _stability(found: Screen) -> Table:
    return Table(
        title="Stability of the marked model's answers",
        columns=("change", "keys with the sealed answer", "95 %", "controls with their own"),
        rows=tuple(
            (
                row.change,
                f"{row.keys.hits} of {row.keys.trials}",
                _interval(row.keys.interval),
                NOTHING if row.controls is None else f"{row.controls.hits} of {row.controls.trials}",
            )
            for row in found.stability
        ),
    )


def _share(share: Share) -> tuple[str, str]:
    return f"{share.hits} of {share.trials}", f"95 % interval {_interval(share.interval)}"


def _interval(interval: Interval) -> str:
    return f"{interval.low:.3f}-{interval.high:.3f}"
