"""The report as one self-contained HTML file: no script, no outside reference, equal bytes for equal evidence."""

import base64
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from auditor import __version__
from auditor.canonical import JsonValue
from auditor.errors import MissingPartError
from auditor.evidence import manifest as paths
from auditor.records import Design, Status
from auditor.report import (
    drawn_labels,
    drawn_table,
    labels,
    plots,
    power,
    procedure,
    provenance,
    table_rows,
    view,
    wording,
)
from auditor.report.declared import state
from auditor.report.inputs import ReportInput, Tree, from_files
from auditor.report.text import clean, level, p_value, rate
from auditor.stats.likelihood import SCALE_SOURCE

if TYPE_CHECKING:
    from jinja2 import Environment, Template

_GENERATOR = re.compile(rb'<meta name="generator" content="([^"<>]*)">')
TEMPLATE = "report.html.j2"
STYLE = "report.css"
FONTS = (
    ("Report Sans", "normal", "DejaVuSans.woff2"),
    ("Report Sans", "bold", "DejaVuSans-Bold.woff2"),
    ("Report Mono", "normal", "DejaVuSansMono.woff2"),
)


def render_html(given: ReportInput) -> bytes:
    """Render the report; a pure function of its argument, without clock, network or randomness.

    Bytes are equal for equal input under the same versions of this package and of matplotlib, which the page names
    in its ``generator`` field.

    Raises:
        MalformedError: the results lack a field, or contradict themselves.
        MissingPartError: the templates are not installed.
    """
    tree = Tree(given.results, "results.json")
    view.check_ranges(tree)
    outcome = view.read_outcome(tree)
    powers = power.power_rows(tree, given)
    words = wording.outcome_wording(outcome.status, view.figures(tree, outcome, powers))
    drawn, table = drawn_labels.applies(tree), drawn_table.applies(tree)
    worded = drawn_table if table else drawn_labels
    if table:
        words = drawn_table.reworded(words, tree, outcome.status)
    page = _environment().get_template(TEMPLATE)
    text = page.render(
        generator=generator(),
        blank_text=wording.BLANK,
        css=_style(),
        words=words,
        status=outcome.status.value,
        status_class=outcome.status.value.replace(" ", "-"),
        outcomes=[status.value for status in Status],
        explanation=outcome.explanation,
        reason_title=wording.reason_title(outcome.reason),
        key_figures=view.key_figures(tree, outcome),
        counts=view.counts(tree),
        test_rows=view.test_rows(tree),
        null_rows=(*view.null_rows(tree), *labels.screen_rows(tree)),
        query_rows=view.query_rows(tree),
        opinion_rows=view.opinion_rows(tree),
        family_sentence=procedure.family_sentence(tree),
        placebo_rows=procedure.placebo_rows(tree),
        powers=powers,
        cap_text=f"at most {power.cap(tree, given)} key samples",
        scale=view.scale(outcome),
        scale_source=SCALE_SOURCE,
        marked=outcome.lr is not None,
        literature=wording.LITERATURE,
        drawn=drawn,
        rivals=drawn_labels.rivals(tree),
        table=table,
        table_rows=table_rows.rows(tree),
        alternatives=worded.alternatives() if drawn or table else wording.ALTERNATIVES,
        fre_702=wording.FRE_702,
        glossary=_glossary(tree),
        **state(given),
        **provenance.identity(given, tree),
        **provenance.items(given, tree),
        **provenance.acquisition(given, tree),
        **_figures(tree),
    )
    return text.encode("utf-8")


def render_again(files: Mapping[str, bytes]) -> bytes:
    """Render a bundle's report again from its files, for comparison with the report.html among them.

    Raises:
        EvidenceError: a file is missing or broken.
        MissingPartError: report.html was made with other versions, under which equal evidence may give other bytes.
    """
    refuse_other_versions(files.get(paths.REPORT_HTML, b""))
    return render_html(from_files(files))


def refuse_other_versions(stored: bytes) -> None:
    """Refuse to compare a page that other versions made, under which equal evidence may give other bytes.

    Raises:
        MissingPartError: the page names other versions than these.
    """
    found = _GENERATOR.search(stored[:8192])
    made_with = "" if found is None else clean(found.group(1).decode("utf-8", "replace"), limit=80)
    if found is not None and made_with != generator():
        raise MissingPartError(
            f"report.html was made with {made_with}, here is {generator()}; install those to compare"
        )


def render_template(name: str, values: Mapping[str, object]) -> bytes:
    """Render another page in the report's style, without its fonts; ``values`` come on top of style and versions."""
    page = _environment().get_template(name)
    text = page.render(generator=generator(), blank_text=wording.BLANK, css=_style(fonts=False), **values)
    return text.encode("utf-8")


def generator() -> str:
    """Return the versions that the bytes of a report depend on."""
    return f"auditor {__version__}, {plots.renderer()}"


def templates_folder() -> Path:
    """Return the folder of the report's templates: inside an installed package, or beside it in a checkout.

    Raises:
        MissingPartError: neither place has them.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_templates", package.parent / "reports" / "templates"):
        if (folder / TEMPLATE).is_file():
            return folder
    raise MissingPartError("the report's templates are missing; install the package again")


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(templates_folder()),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@lru_cache(maxsize=2)
def _style(*, fonts: bool = True) -> str:
    from markupsafe import Markup

    folder = templates_folder()
    faces = []
    for family, weight, name in FONTS if fonts else ():
        data = base64.b64encode((folder / "fonts" / name).read_bytes()).decode("ascii")
        faces.append(
            f'@font-face {{ font-family: "{family}"; font-weight: {weight}; '
            f'src: url("data:font/woff2;base64,{data}") format("woff2"); }}'
        )
    # The stylesheet and the fonts are the package's own files; nothing from outside enters this string.
    return Markup("\n".join([*faces, (folder / STYLE).read_text(encoding="utf-8")]))


def _glossary(tree: Tree) -> tuple[tuple[str, str], ...]:
    if drawn_table.applies(tree):
        return drawn_table.glossary()
    return drawn_labels.glossary(tree) if drawn_labels.applies(tree) else wording.GLOSSARY


def _figures(tree: Tree) -> dict[str, object]:
    points = [_point(item) for item in tree.items("/test/steps")]
    hits, trials = drawn_labels.bet_hits(tree), drawn_labels.bets(tree)
    among = drawn_labels.counted(tree) if drawn_labels.applies(tree) else "key samples"
    if drawn_table.applies(tree):
        return _table_figures(tree)
    null_rate, alpha = tree.number("/null/rate"), tree.number("/test/alpha_test")
    futility, p_min = tree.number("/test/futility"), f"{tree.number('/test/p_min'):g}"
    sequential = tree.text("/test/design") == Design.SEQUENTIAL
    end = "no key sample was asked" if not points else (
        f"after {points[-1].n} key samples the log10 e-value is {points[-1].log10_e:.2f}"
    )  # fmt: skip
    tail = p_value(tree.number("/fixed_test/log10_p")) if tree.has("/fixed_test") else "1"
    evidence = plots.evidence_figure(points, alpha=alpha, futility=futility, p_min=p_min, sequential=sequential)
    law = plots.null_law_figure(hits=hits, trials=trials, null_rate=null_rate, among=among)
    if sequential:
        curves = (
            f"Solid with dots: the e-value against the null rate. Light with squares: the ratio of hit rate {p_min} "
            "to the null rate. The upper line ends the examination with a claim, the lower one without."
        )
        caution = "Descriptive: the bars ignore that the examination may stop early."
    else:
        curves = "The e-value against the null rate is descriptive here: the fixed design tests once, after all keys."
        caution = "The fixed design tests this upper tail against the sealed level."
    return {
        "evidence_figure": _data_uri(evidence),
        "evidence_alt": f"Curve of the evidence against the number of key samples asked; {end}; the claim threshold is "
        f"an e-value of 1/{level(alpha)}.",
        "evidence_caption": f"Evidence against the number of key samples asked, in that order. {curves}",
        "null_figure": _data_uri(law),
        "null_alt": f"Bars of the binomial law of hits among {trials} {among} at the null rate {rate(null_rate)}, "
        f"with a line at the {hits} hits observed.",
        "null_caption": f"How many hits the null rate would produce among {trials} {among} (bars), and the {hits} "
        f"observed (line). Upper tail from the observed number: {tail}. {caution}",
        "sequential": sequential,
    }


def _table_figures(tree: Tree) -> dict[str, object]:
    """Return the figures of a drawn table: redraw distribution, and the law of the number of leading cells."""
    hits, trials, null_rate = (
        tree.integer("/detection/hits"),
        tree.integer("/detection/trials"),
        tree.number("/null/rate"),
    )
    drawn, alt, caption = table_rows.figure(tree)
    return {
        "evidence_figure": _data_uri(drawn),
        "evidence_alt": alt,
        "evidence_caption": caption,
        "null_figure": _data_uri(plots.null_law_figure(hits=hits, trials=trials, null_rate=null_rate, among="cells")),
        "null_alt": f"Bars of the binomial law of leading cells among {trials}, with a line at the {hits} observed.",
        "null_caption": f"In how many of {trials} cells the drawn target would score highest by chance (bars), and in "
        f"how many it did for the client with the smallest p-value (line). Descriptive: the test weighs the scores.",
        "sequential": False,
    }


def _point(item: JsonValue) -> plots.EvidencePoint:
    step = Tree(item if isinstance(item, Mapping) else {}, "results.json /test/steps")
    return plots.EvidencePoint(
        n=step.integer("/n"), log10_e=step.number("/log10_e"), log10_futility=step.number("/log10_futility")
    )


def _data_uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def template(name: str) -> "Template":
    """Return one of the package's templates, for pages that are no reports.

    Raises:
        MissingPartError: the templates are not installed.
    """
    return _environment().get_template(name)


def stylesheet() -> str:
    """Return the stylesheet with its fonts, ready for a page's head."""
    return _style()
