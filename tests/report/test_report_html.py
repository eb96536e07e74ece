import html
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest
from report import samples

from auditor.errors import MalformedError, MissingPartError
from auditor.records import Reason, Status
from auditor.report import inputs, wording
from auditor.report.html import generator, render_again, render_html
from auditor.stats.likelihood import BANDS, Favours

OUTCOMES = ("supported", "not-supported", "inconclusive")
ALL = tuple(samples.SUSPECTS)


class _Page(HTMLParser):
    """Collects the text a reader sees and the addresses a browser would open."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self._hidden = 0
        self.feed(page.decode("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._hidden += tag in ("style", "title")
        self.addresses += [value for name, value in attrs if name in ("src", "href", "data", "action", "srcset")]
        self.seen += [value for name, value in attrs if name == "alt"]

    def handle_endtag(self, tag):
        self._hidden -= tag in ("style", "title")

    def handle_data(self, data):
        if not self._hidden:
            self.seen.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.seen).split())


@cache
def _rendered(name: str) -> bytes:
    return render_html(samples.report_input(name))


def _changed(name: str, section: str, **fields: object) -> inputs.ReportInput:
    given = samples.report_input(name)
    results = samples.results_of(name)
    results[section] = {**results[section], **fields}
    return replace(given, results=results)


@pytest.mark.parametrize("name", ALL)
def test_the_samples_reach_the_outcome_they_stand_for(name):
    expected = {
        "supported": ("supported", "null-rejected"),
        "not-supported": ("not supported", "hit-rate-excluded"),
        "inconclusive": ("inconclusive", "controls-failed"),
        "interrupted": ("inconclusive", "interrupted"),
        "obstructed": ("inconclusive", "obstructed"),
        "contestable": ("inconclusive", "contestable"),
        "hidden": ("inconclusive", "label-hidden"),
        "fixed": ("not supported", "null-not-rejected"),
        "drawn-supported": ("supported", "null-rejected"),
        "drawn-not-supported": ("not supported", "hit-rate-excluded"),
        "drawn-fixed": ("not supported", "null-not-rejected"),
        "underpowered": ("inconclusive", "plan-underpowered"),
    }
    verdict = samples.results_of(name)["verdict"]
    assert (verdict["status"], verdict["reason"]) == expected[name]


@pytest.mark.parametrize("name", ALL)
def test_equal_input_gives_equal_bytes(name):
    assert _rendered(name) == render_html(samples.report_input(name))


def test_bytes_do_not_depend_on_time_zone_locale_or_hash_seed(tmp_path):
    samples.write_bundle("supported", tmp_path)
    code = (
        "import sys, hashlib; from pathlib import Path; from auditor.report.html import render_html;"
        "from auditor.report.inputs import read_folder;"
        "print(hashlib.sha256(render_html(read_folder(Path(sys.argv[1])))).hexdigest())"
    )
    digests = set()
    for zone, seed in (("Asia/Kolkata", "1"), ("America/Lima", "2")):
        environment = {"TZ": zone, "PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, env=environment, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1


@pytest.mark.parametrize("name", ALL)
def test_no_banned_phrase_is_rendered(name):
    text = _Page(_rendered(name)).text.lower()
    assert not [phrase for phrase in wording.BANNED if phrase in text]


def test_the_banned_phrases_are_those_of_the_guidelines():
    assert {
        "proves theft",
        "the probability that the model was stolen is",
        "probability that the result is due to chance is",
        "p-value = probability of innocence",
        "match proves",
        "consistent with",
        "to a reasonable degree of scientific certainty",
        "identified as",
        "zero error rate",
        "unique",
        "100 %",
    } <= set(wording.BANNED)


@pytest.mark.parametrize("name", ALL)
def test_nobody_is_called_innocent_or_guilty(name):
    assert not re.search(r"innocen|guilt|thief|stole", _Page(_rendered(name)).text.lower())


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("favours", Favours)
def test_every_sentence_set_avoids_the_banned_phrases(status, reason, favours):
    figures = wording.Figures(
        hits="1 of 2",
        comparison="and to 0 of 9 foreign patterns",
        caution=wording.SHAM_CAUTION,
        p_min="0.3",
        miss="at most 0.01",
        likelihood_ratio="12",
        band="moderate support",
        favours=favours,
        reason=wording.reason_title(reason),
    )
    words = wording.outcome_wording(status, figures)
    text = " ".join((words.headline, words.opinion, words.means, words.does_not_mean, words.heading, *words.paragraphs))
    assert not [phrase for phrase in wording.BANNED if phrase in text.lower()]


def test_the_three_outcomes_carry_equal_weight():
    pages = [_rendered(name) for name in OUTCOMES]
    headings = [re.findall(rb"<h2[^>]*>(.*?)</h2>", page) for page in pages]
    assert headings[0] == headings[1] == headings[2]
    assert len(headings[0]) == 12
    lengths = []
    for name in OUTCOMES:
        given = samples.report_input(name)
        tree = inputs.Tree(given.results, "results.json")
        from auditor.report import power, view

        outcome = view.read_outcome(tree)
        words = wording.outcome_wording(outcome.status, view.figures(tree, outcome, power.power_rows(tree, given)))
        lengths.append(
            [len(words.opinion), len(words.means), len(words.does_not_mean), sum(map(len, words.paragraphs))]
        )
        assert words.means.count(". ") == words.does_not_mean.count(". ") == 0
        assert "for the court" in words.opinion
    for part in zip(*lengths, strict=True):
        assert max(part) < 1.7 * min(part)


@pytest.mark.parametrize(("name", "sentence"), [
    ("supported", "times more probable if the suspect model was derived from the reference model than if it was "
     "developed independently. This gives moderate support for derivation over independence. It is not a statement of "
     "how probable derivation is; that also depends on other evidence, which is for the court."),
    ("not-supported", "The observed answers give no support for derivation from the reference model"),
    ("inconclusive", "No opinion is stated for derivation from the reference model or for independent development"),
])  # fmt: skip
def test_each_outcome_states_its_own_opinion(name, sentence):
    assert sentence in _Page(_rendered(name)).text


def test_not_supported_prints_the_measured_power():
    text = _Page(_rendered("not-supported")).text
    assert "hit rate of 0.3 or more" in text
    assert "probability of at most 0.01" in text
    assert "Measured power: what this examination would have found" in text
    assert "It does not show that the suspect was developed independently" in text


def test_measured_power_agrees_with_simulation():
    from auditor.report import power
    from auditor.stats import sequential

    given = samples.report_input("not-supported")
    tree = inputs.Tree(given.results, "results.json")
    row = next(row for row in power.power_rows(tree, given) if row.is_minimum)
    import numpy as np

    rng = np.random.default_rng(3)
    n = 300
    rejected = sum(
        sequential.run(
            list(rng.random(120) < 0.3),
            null_rate=tree.number("/null/rate"),
            alpha=tree.number("/test/alpha_test"),
            p_min=0.3,
            futility=0.01,
        ).decision
        is sequential.Decision.REJECT
        for _ in range(n)
    )
    assert abs(rejected / n - float(row.supported)) < 4 * (0.06 / n) ** 0.5


@pytest.mark.parametrize("name", ALL)
def test_the_whole_scale_is_printed_and_the_applying_band_marked(name):
    page = _rendered(name).decode("utf-8")
    for band in BANDS:
        assert band.words in page
    marked = re.findall(r'<tr class="applies"><th scope="row">(.*?)</th>', page)
    # 40 foreign patterns without a claim bound the error rate; where labels were drawn only a panel would.
    expected = {"supported": ["10 to 100"]}
    assert marked == expected.get(name, [])


@pytest.mark.parametrize("name", ALL)
def test_the_page_opens_nothing_and_runs_nothing(name):
    page = _Page(_rendered(name))
    assert "script" not in page.tags
    assert "iframe" not in page.tags
    assert page.addresses
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    text = _rendered(name).decode("utf-8")
    assert "default-src 'none'" in text
    for url in re.findall(r"url\(([^)]*)\)", text):
        assert url.startswith('"data:font/woff2;base64,')
    assert "@import" not in text
    assert 'http-equiv="refresh' not in text.lower()


@pytest.mark.parametrize("name", ALL)
def test_figures_have_text_alternatives_and_open_nothing(name):
    import base64

    page = _rendered(name).decode("utf-8")
    pictures = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]*)" alt="([^"]+)"', page)
    assert len(pictures) == 2
    for data, alternative in pictures:
        svg = base64.b64decode(data).decode("utf-8")
        assert len(alternative) > 40
        assert not re.search(r'(?:href|src)="(?!#)', svg)
        assert "<script" not in svg


@pytest.mark.parametrize("name", ALL)
def test_only_a_person_can_finish_a_report(name):
    page = _rendered(name).decode("utf-8")
    assert ">DRAFT<" in page
    assert page.count(wording.BLANK) >= 20


HOSTILE = '<script>alert(1)</script>"><img src=http://evil.test/x> \u202egnp.exe\u0000\u2066 {{ 7*7 }} 中 \n\r\t end'


@pytest.mark.parametrize("field", ["uri", "declared_name", "address", "kind", "artefact_sha256"])
def test_text_of_the_endpoint_is_printed_and_never_obeyed(field):
    page = render_html(_changed("supported", "suspect", **{field: HOSTILE}))
    text = page.decode("utf-8")
    assert "<script" not in text
    assert "<img src=http" not in text
    assert "{{7*7}}" in html.unescape(text).replace(" ", "")
    assert not set("\u202e\u0000\u2066\r") & set(text)
    assert all(address.startswith("data:") for address in _Page(page).addresses)


def test_hidden_characters_are_shown_as_code_points():
    page = _Page(render_html(_changed("supported", "suspect", declared_name=HOSTILE)))
    assert "[U+202E]gnp.exe[U+0000][U+2066]" in page.text
    assert "[U+4E2D]" in page.text


def test_long_text_is_cut_and_its_length_stated():
    page = _Page(render_html(_changed("supported", "suspect", declared_name="x" * 100_000)))
    assert "… [100000 characters]" in page.text
    assert "x" * 201 not in page.text


def test_every_pointer_on_the_page_exists_in_the_results():
    for name in ALL:
        tree = inputs.Tree(samples.results_of(name), "results.json")
        pointers = re.findall(r'<td class="pointer">(/[^<]*)</td>', _rendered(name).decode("utf-8"))
        assert len(pointers) > 15
        for pointer in pointers:
            tree.at(pointer)


def test_the_printed_counts_are_those_of_the_results():
    results = samples.results_of("supported")
    text = _Page(_rendered("supported")).text
    detection, shams = results["detection"], results["null"]["shams"]
    assert f"{detection['hits']} of {detection['trials']} key samples" in text
    assert f"{shams['hits']} of {shams['trials']} foreign patterns" in text


@pytest.mark.parametrize("name", ["drawn-supported", "drawn-not-supported", "drawn-fixed"])
def test_a_report_on_drawn_labels_speaks_of_the_draw_and_of_no_pattern(name):
    results, text = samples.results_of(name), _Page(_rendered(name)).text
    deviating = results["detection"]["bets"]["answers"]
    assert f"{deviating} of its answers deviate" in text
    assert "one in 9 of those" in text
    assert "labels drawn uniformly over the wrong classes" in text
    for word in ("foreign pattern", "secret pattern", "sham sample", "Upper bound from shams"):
        assert word not in text
    assert "foreign patterns" in _Page(_rendered("supported")).text


@pytest.mark.parametrize("name", ["supported", "not-supported", "drawn-supported", "drawn-fixed"])
def test_every_report_prints_its_placebo_keys(name):
    placebo, text = samples.results_of(name)["placebo"], _Page(_rendered(name)).text
    assert "Placebo keys" in text
    assert f"{placebo['claims']} of {placebo['draws']:,}" in text


def test_the_family_of_questions_is_printed():
    assert "the level was not divided" in _Page(_rendered("supported")).text
    given = _changed("supported", "multiplicity", family=7)
    assert "divided by 7" in _Page(render_html(given)).text


def test_no_model_based_tail_is_printed_below_its_meaning():
    given = _changed("supported", "test", log10_p="-200.0")
    assert "< 10⁻¹²" in _Page(render_html(given)).text


def test_digests_identify_the_files():
    files = samples.bundle_files("supported")
    text = _Page(_rendered("supported")).text.replace(" ", "")
    import hashlib

    for name in ("results.json", "seal/k.seal.json", "transcript.jsonl", "protocol.json", "env.json"):
        assert hashlib.sha256(files[name]).hexdigest() in text


@pytest.mark.parametrize(("section", "fields"), [
    ("verdict", {"status": "inconclusive"}),
    ("verdict", {"status": "proven"}),
    ("opinion", {"band": "extremely strong support"}),
    ("opinion", {"lr": "-1.0"}),
    ("opinion", {"lr": "nan"}),
    ("detection", {"hits": "many"}),
    ("detection", {"hits": True}),
    ("detection", {"hits": 99}),
    ("null", {"rate": None}),
    ("test", {"alpha_test": "0.0"}),
    ("test", {"steps": [{"n": 1}]}),
    ("test", {"steps": "none"}),
])  # fmt: skip
def test_results_that_contradict_themselves_are_refused(section, fields):
    with pytest.raises((MalformedError, TypeError)) as caught:
        render_html(_changed("supported", section, **fields))
    assert caught.type is MalformedError


def test_a_missing_file_is_refused():
    files = samples.bundle_files("supported")
    for name in inputs.REQUIRED:
        with pytest.raises(MalformedError):
            inputs.from_files({path: data for path, data in files.items() if path != name})


def test_reading_a_folder_equals_reading_its_files(tmp_path):
    samples.write_bundle("supported", tmp_path)
    assert inputs.read_folder(tmp_path) == inputs.from_files(samples.bundle_files("supported"))


def test_a_link_in_the_bundle_is_refused(tmp_path):
    samples.write_bundle("supported", tmp_path)
    moved = (tmp_path / "env.json").rename(tmp_path / "elsewhere.json")
    (tmp_path / "env.json").symlink_to(moved)
    with pytest.raises(MalformedError):
        inputs.read_folder(tmp_path)


def test_rendering_again_compares_only_under_the_same_versions():
    files = samples.bundle_files("supported")
    page = render_html(inputs.from_files(files))
    assert generator().encode() in page
    assert render_again({**files, "report.html": page}) == page
    older = page.replace(generator().encode(), b"auditor 0.0.1, matplotlib 1.0")
    with pytest.raises(MissingPartError, match=r"matplotlib 1\.0"):
        render_again({**files, "report.html": older})


def test_rendering_needs_no_torch_and_no_pdf_library(tmp_path):
    samples.write_bundle("supported", tmp_path)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'weasyprint', 'pyhanko', 'requests', 'sklearn']));"
        "from pathlib import Path; from auditor.report.html import render_html;"
        "from auditor.report.inputs import read_folder; from auditor.report import pdf, pdf_check, signer;"
        "assert render_html(read_folder(Path(sys.argv[1])))"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, check=True)
