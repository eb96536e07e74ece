"""The page and the tables of a dry run."""

from dataclasses import asdict, dataclass

from auditor import __version__
from auditor.canonical import JsonValue, decimal_string
from auditor.report.html import stylesheet, template
from auditor.stats.exact import Interval
from auditor.study.config import StudyConfig
from auditor.study.plots import power_figure, strength_figure
from auditor.study.summary import SchemeSummary, SuspectSummary

TEMPLATE = "study.html.j2"
COLUMNS = (
    "suspect", "seeds", "supported", "power (95 %)", "not supp.", "inconcl.", "accuracy before", "after", "hit rate",
    "weakest seed", "keys to decision", "keys to seal",
)  # fmt: skip
NOTHING = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemePage:
    """One scheme as the page shows it."""

    title: str
    rows: tuple[tuple[str, ...], ...]
    innocents: str
    recommendation: str
    power_figure: str
    strength_figure: str


def table_rows(scheme: SchemeSummary) -> tuple[tuple[str, ...], ...]:
    """Return the table of one scheme, one row per suspect and one for all innocents, under :data:`COLUMNS`."""
    summaries = [*scheme.suspects, *([] if scheme.innocents is None else [scheme.innocents])]
    return tuple(_row(summary) for summary in summaries)


def innocents_sentence(scheme: SchemeSummary) -> str:
    """Return what is known of false claims, in words."""
    if scheme.false_claims is None:
        return "No innocent model was audited: nothing is known of false claims."
    return f"{scheme.false_claims.sentence[0].upper()}{scheme.false_claims.sentence[1:]}."


def recommendation(scheme: SchemeSummary) -> str:
    """Return how many keys to seal and where the scheme ends, in words."""
    by = " by first labels alone" if scheme.labels_alone else ""
    limit = f"below p = {scheme.breaking_rate:.3f} this scheme cannot decide{by}"
    if scheme.recommended_keys is None:
        return f"No number of keys recognises what was tried here{by}; {limit}."
    lost = f" (not counting {', '.join(scheme.hopeless)})" if scheme.hopeless else ""
    return f"Seal at least {scheme.recommended_keys} keys{lost}; {limit}."


def render_page(config: StudyConfig, summaries: tuple[SchemeSummary, ...]) -> bytes:
    """Return the self-contained page of a dry run; needs matplotlib and Jinja2."""
    schemes = [
        SchemePage(
            title=scheme.title,
            rows=table_rows(scheme),
            innocents=innocents_sentence(scheme),
            recommendation=recommendation(scheme),
            power_figure=power_figure(scheme),
            strength_figure=strength_figure(scheme),
        )
        for scheme in summaries
    ]
    text = template(TEMPLATE).render(
        css=stylesheet(), version=__version__, study=config.study, columns=COLUMNS, schemes=schemes
    )
    return text.encode()


def summary_object(config: StudyConfig, summaries: tuple[SchemeSummary, ...]) -> dict[str, JsonValue]:
    """Return the summary as JSON; fractions are decimal strings."""
    return {
        "schema": "mlaudit.study/1",
        "tool_version": __version__,
        "study": _plain(config.study.model_dump()),
        "schemes": [{**_object(asdict(scheme)), "recommendation": recommendation(scheme)} for scheme in summaries],
    }


def _row(summary: SuspectSummary) -> tuple[str, ...]:
    seeds = str(summary.trials) if not summary.failed else f"{summary.trials} (+{summary.failed} failed)"
    return (
        summary.title,
        seeds,
        str(summary.supported),
        _interval(summary.power),
        str(summary.not_supported),
        str(summary.inconclusive),
        _share(summary.accuracy_before),
        _share(summary.accuracy_after),
        _share(summary.hit_rate),
        _share(min(summary.seed_rates, default=None)),
        NOTHING if summary.keys_until_decision is None else f"{summary.keys_until_decision:g}",
        NOTHING if summary.keys_needed is None else str(summary.keys_needed),
    )


def _interval(interval: Interval | None) -> str:
    return NOTHING if interval is None else f"{interval.low:.2f}–{interval.high:.2f}"


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def _object(value: dict[str, object]) -> dict[str, JsonValue]:
    return {name: _plain(item) for name, item in value.items()}


def _plain(value: object) -> JsonValue:
    if isinstance(value, float):
        return decimal_string(value)
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"{type(value).__name__} has no place in a summary")
