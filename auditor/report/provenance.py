"""What was examined, by which plan, with which tool, and who held it: the report's facts about the examination."""

from collections.abc import Callable, Mapping, Sequence

from auditor.canonical import JsonValue
from auditor.evidence import manifest as paths
from auditor.evidence.custody import CustodyEvent
from auditor.evidence.issue import issued_path
from auditor.evidence.open_custody import LaterEvent
from auditor.records import Design
from auditor.report import drawn_labels, drawn_table, labels, view, wording
from auditor.report.declared import DECLARED, declared
from auditor.report.inputs import ReportInput, Tree
from auditor.report.text import clean, level, rate
from auditor.report.transport import transport_rows
from auditor.report.view import Row, digest

_STAMPED = {paths.SEAL: "seal", paths.HEAD_ENVELOPE: "transcript head"}
_NAMED_IN_ENVIRONMENT = ("auditor", "python", "platform")


def identity(given: ReportInput, tree: Tree) -> dict[str, object]:
    """Return the template\'s values for front page, integrity box and declarations."""
    said = declared(given)
    issued = given.issued_at or given.closed_at
    superseded = f", supersedes rev. {given.revision - 1}" if given.revision > 1 else ""
    identification = (
        Row(label="Report", value=f"{given.report_id}, rev. {given.revision}{superseded}"),
        Row(label="Case number", value=said["case.number"]),
        Row(label="Court, requester", value=said["case.court"]),
        Row(label="Examiner, role", value=joined(said["examiner.name"], said["examiner.role"])),
        Row(label="Organisation", value=said["examiner.organisation"]),
    )
    dates = (
        Row(label="Keys sealed", value=_time(tree.text("/keyset/sealed_at"))),
        Row(label="Suspect public", value=said["items.suspect_public_since"]),
        Row(label="First record", value=_time(given.opened_at)),
        Row(label="Last record", value=_time(given.closed_at)),
        Row(label="Time stamps", value=_stamps_in_short(given)),
    )
    integrity = (
        Row(label="results.json, SHA-256", value=digest(given.digests.get("results.json", "")), code=True),
        Row(label="Transcript head, SHA-256", value=digest(given.transcript_head), code=True),
        Row(label="Seal, SHA-256", value=digest(tree.text("/keyset/seal_sha256")), code=True),
        Row(label="Owner's key, fingerprint", value=digest(tree.text("/keyset/owner_fingerprint")), code=True),
        Row(label="Examiner's key, fingerprint", value=digest(given.examiner_fingerprint), code=True),
        Row(label="Certificate signing the PDF", value=_certificate(given), code=bool(given.certificate_sha256)),
    )  # fmt: skip
    return {
        "report_id": given.report_id,
        "revision": given.revision,
        "issued": clean(issued, limit=40),
        "issued_day": clean(issued[:10], limit=10),
        "suspect_uri": clean(tree.text("/suspect/uri"), limit=120),
        "keyset_short": clean(tree.text("/keyset/id"), limit=64)[:12],
        "identification": identification,
        "dates": dates,
        "integrity": integrity,
        "check_commands": _commands(given.revision),
        "h1": clean(tree.text("/propositions/h1"), limit=1000),
        "h2": clean(tree.text("/propositions/h2"), limit=1000),
        "serial": tree.integer("/keyset/serial"),
        "digests": [(name, digest(value)) for name, value in sorted(given.digests.items())],
        "declarations": [
            Row(label=label, value=said[field]) for label, field in zip(wording.DECLARATIONS, DECLARED, strict=True)
        ],
    }


def joined(name: str, role: str) -> str:
    """Return name and role on one line, or nothing where the name is still missing."""
    return ", ".join(part for part in (name, role) if part) if name else ""


def _stamps_in_short(given: ReportInput) -> str:
    stamped = [name for path, name in _STAMPED.items() if given.time_stamps.get(path)]
    return f"{' and '.join(stamped)}; see section 6" if stamped else "none; own clocks only"


def _stamps(given: ReportInput) -> str:
    """Say what tokens state; whether an authority is to be trusted is for the reader."""
    told = [
        f"{name} {', '.join(_time(moment) for moment in given.time_stamps[path])}"
        for path, name in _STAMPED.items()
        if given.time_stamps.get(path)
    ]
    if not told:
        return "none: not independently time-stamped, all times rest on the clocks of owner and examiner"
    return f"stated by tokens in the bundle: {'; '.join(told)}. Verify with: auditor check --tsa-root ROOT.pem"


def _certificate(given: ReportInput) -> str:
    return (
        digest(given.certificate_sha256) if given.certificate_sha256 else "none recorded; the PDF, if any, is unsigned"
    )


NO_RANDOMNESS = (
    "none: the draw rests on the owner's committed secret alone; the declared number of tries is charged to the level"
)


def _commands(revision: int) -> str:
    pdf = paths.REPORT_PDF if revision == 1 else issued_path(revision, paths.REPORT_PDF)
    return "\n".join(
        (
            "auditor check BUNDLE --render --owner-key FINGERPRINT --examiner-key FINGERPRINT",
            "sha256sum BUNDLE/results.json BUNDLE/seal/k.seal.json",
            f"pdfdetach -savefile results.json -o attached.json BUNDLE/{pdf}",
        )
    )


def items(given: ReportInput, tree: Tree) -> dict[str, object]:
    """Return the template\'s values for reference model, suspect and key set."""
    seal, said = given.seal, declared(given)
    settings = ", ".join(f"{name} {_plain(value)}" for name, value in sorted(seal.generator.settings.items()))
    randomness, source = tree.text("/keyset/randomness"), clean(tree.text("/keyset/randomness_source"))
    committed = tree.text("/keyset/commitment_sha256")
    asked = given.preamble.get("suspect")

    def recorded(name: str) -> str:
        value = asked.get(name) if isinstance(asked, Mapping) else None
        return value if isinstance(value, str) else ""

    committed = f"; commitment {digest(committed)}" if committed else ""
    model = (
        Row(label="Weights, SHA-256", value=digest(tree.text("/keyset/model_sha256")), code=True),
        Row(label="Name, provenance, condition on receipt", value=said["items.reference_model"]),
    )
    suspect = (
        Row(label="Address or file", value=clean(tree.text("/suspect/uri")), code=True),
        Row(label="Kind", value=clean(tree.text("/suspect/kind"))),
        Row(label="Resolved network address", value=clean(tree.text("/suspect/address")) or view.NONE),
        Row(label="Name it gives itself", value=clean(tree.text("/suspect/declared_name")) or view.NONE),
        Row(label="Description or file, SHA-256", value=digest(tree.text("/suspect/artefact_sha256")), code=True),
        Row(
            label="Certificate of the connection, SHA-256",
            value=digest(recorded("certificate_sha256")) if recorded("certificate_sha256") else "not recorded",
            code=bool(recorded("certificate_sha256")),
        ),
        Row(label="Spoken to by profile", value=_profile(recorded)),
        Row(
            label="Account label, as recorded before the first question",
            value=clean(recorded("account"), limit=200) or view.NONE,
        ),
        Row(label="Account used", value=said["items.suspect_account"]),
        *labels.rows(tree),
    )
    keys = (
        Row(label="Identifier", value=clean(tree.text("/keyset/id")), code=True),
        Row(label="Key samples sealed", value=str(tree.integer("/keyset/n_keys"))),
        Row(label="Scheme", value=f"{clean(tree.text('/scheme'))}, version {tree.integer('/scheme_version')}"),
        Row(label="Generator", value=clean(f"{seal.generator.name}, version {seal.generator.version}; {settings}")),
        Row(label="Root over the sealed samples", value=digest(seal.merkle_root), code=True),
        Row(label="Commitment to the owner's seed", value=digest(seal.seed_commitment), code=True),
        Row(label="Place in the owner's series", value=f"no. {tree.integer('/keyset/serial')}"),
        Row(label="Previous seal, SHA-256", value=digest(seal.previous_seal_sha256), code=seal.serial > 1),
        Row(label="Generation", value=f"{clean(tree.text('/keyset/generation'))}{committed}"),
        Row(label="Public randomness in the draw",
            value=f"{source}: {clean(randomness)}" if randomness else NO_RANDOMNESS),
    )  # fmt: skip
    return {"items_model": model, "items_suspect": suspect, "items_keys": keys}


def _profile(recorded: Callable[[str], str]) -> str:
    name, sha256 = clean(recorded("profile"), limit=200), recorded("profile_sha256")
    if not name:
        return "none: the package's own contract, or a model file"
    return f"{name}, SHA-256 {digest(sha256)}" if sha256 else name


def acquisition(given: ReportInput, tree: Tree) -> dict[str, object]:
    """Return the template\'s values for transcript, custody, environment and plan."""
    environment = given.environment
    packages = environment.get("packages")
    versions = packages if isinstance(packages, Mapping) else {}
    listed = ", ".join(f"{name} {_plain(versions[name])}" for name in sorted(versions) if versions[name] is not None)
    rows = [
        Row(label=name.capitalize(), value=_recorded(environment, name))
        for name in _NAMED_IN_ENVIRONMENT
        if name in environment
    ]
    rows.append(Row(label="Packages", value=clean(listed, limit=600) or view.NONE))
    rows.append(Row(label="Self-test of the build on this machine", value="not recorded in the bundle"))
    counts = given.counts
    acquisition: tuple[Row, ...] = (
        Row(label="Transcript records, chained", value=f"{counts.get('lines', 0):,}"),
        Row(label="Exchanges; of these without an answer",
            value=f"{counts.get('batches', 0):,}; {counts.get('batches_unanswered', 0):,}"),
        Row(label="Attempts without a complete answer", value=f"{counts.get('failed_attempts', 0):,}"),
        Row(label="Questions issued; of these without an answer",
            value=f"{tree.integer('/queries/total'):,}; {tree.integer('/queries/failed'):,}"),
        Row(label="Excluded after being asked", value="none: every issued question counts"),
        Row(label="Operator as recorded by the tool", value=_recorded(given.preamble, "operator")),
        Row(label="How the transcript was closed", value=clean(given.closed_reason) or "not closed"),
        Row(label="Independent time stamps", value=_stamps(given)),
        Row(label="Clock", value=_recorded(given.preamble, "clock")),
    )  # fmt: skip
    return {
        "acquisition": (*acquisition, *transport_rows(given.transport)),
        "custody": _custody(given.custody),
        "keyset_custody": _keyset_custody(given.keyset_custody),
        "environment_rows": rows,
        "protocol_rows": _protocol(Tree(given.protocol, "protocol.json"), tree),
        "deviations": [clean(str(item), limit=400) for item in tree.items("/deviations")],
        "test_name": clean(tree.text("/test/name")),
        **_validation(tree),
    }


def _validation(tree: Tree) -> dict[str, object]:
    rates = []
    if tree.has("/opinion/empirical"):
        found = f"{tree.integer('/opinion/empirical/false_claims')} of {tree.integer('/opinion/empirical/audits')}"
        what = f"On this suspect: {clean(tree.text('/opinion/empirical/what'))}"
        rates.append((what, found, rate(tree.number("/opinion/empirical/upper_bound")), "0.05"))
    if tree.has("/null/shams/upper_bound"):
        error = level(tree.number("/null/shams/error")) if tree.has("/null/shams/error") else "stated in section 7"
        found = f"{tree.integer('/null/shams/hits')} of {tree.integer('/null/shams/trials')}"
        bound = rate(tree.number("/null/shams/upper_bound"))
        rates.append(("On this suspect: sham samples with the sealed answer", found, bound, error))
    if tree.has("/null/panel"):
        panel = f"{clean(tree.text('/null/panel/sentence'), limit=300)}. The unit is the model, not the answer."
        text = "see the panel in section 5"
        rates.append(
            (
                "Independent models that the sealed test on first labels claims",
                f"{tree.integer('/null/panel/false_claims')} of {tree.integer('/null/panel/models')}",
                rate(tree.number("/null/panel/upper_bound")),
                "0.05",
            )
        )
        rates.append(
            (
                f"Mean hit rate of those models over {tree.integer('/null/panel/keys')} keys",
                rate(tree.number("/null/panel/mean_rate")),
                rate(tree.number("/null/panel/mean_rate_upper")),
                "0.05",
            )
        )
    else:
        panel = "No panel of independently developed models was examined for this report."
        text = view.NONE
    return {"error_rates": rates, "panel_sentence": panel, "panel_text": text}


def _protocol(protocol: Tree, tree: Tree) -> tuple[Row, ...]:
    def count(name: str) -> str:
        return str(protocol.integer(f"/{name}"))

    def share(name: str) -> str:
        return level(protocol.number(f"/{name}"))

    stage = (
        f"{count('opening_keys')} keys, {count('n_shams')} shams from {count('n_sham_patterns')} patterns, "
        f"{count('n_controls')} controls, {count('n_repeats')} repetitions"
    )
    limits = (
        f"natural answers on controls at least {share('min_control_accuracy')}; different answers on repetition at "
        "most "
        f"{share('max_disagreement')}; missing answers in the first stage at most {share('max_failed_share')}; "
        "selective "
        f"refusal tested at {share('obstruction_alpha')}"
    )
    forecast = (
        f"hit rate {rate(protocol.number('/forecast_rate'))}, sham rate "
        f"{rate(protocol.number('/forecast_sham_rate'))}, "
        f"natural answers on controls {rate(protocol.number('/forecast_control_accuracy'))}"
    )
    detect = f"{share('p_min')}; at or above it, a futility stop has a probability of at most {share('futility')}"
    if protocol.text("/design") == Design.FIXED:
        detect = f"{share('p_min')}; a fixed design has no futility stop"
    drawn = drawn_labels.applies(tree) or drawn_table.applies(tree)
    asked = f"{count('opening_keys')} of {count('n_keys')}" if drawn_table.applies(tree) else count("n_keys")
    return (
        Row(label="Level of the claim", value=f"{share('alpha')} sealed; {level(tree.number('/test/alpha'))} used"),
        Row(label="Share of it for the null bound", value="none; the draw supplies the rate" if drawn
            else share("null_share")),
        Row(label="Floor of the null rate", value="none; the draw supplies the rate" if drawn
            else share("null_floor")),
        Row(label="Hit rate to be detected", value=detect),
        Row(label="Design", value=clean(protocol.text("/design"))),
        Row(label="First stage", value=stage),
        Row(label="Keys that may be asked", value=asked),
        Row(label="Conditions for a conclusion", value=limits),
        Row(label="Measured on the owner's model at sealing", value=forecast),
    )  # fmt: skip


def _custody(events: Sequence[CustodyEvent]) -> list[tuple[str, str, str, str]]:
    shown = [
        (
            _time(event.at).removesuffix(" UTC"),
            event.act.value,
            _short(event.actor),
            f"{clean(event.path)} {_short(event.sha256)}",
        )
        for event in events[: view.MAX_ROWS]
    ]
    if len(events) > view.MAX_ROWS:
        shown.append(("", "…", "", f"{len(events) - view.MAX_ROWS} more in custody.jsonl"))
    return shown


def _keyset_custody(events: Sequence[LaterEvent]) -> list[tuple[str, str, str, str]]:
    shown = [
        (
            _time(event.at).removesuffix(" UTC"),
            event.act.value,
            clean(event.by),
            " · ".join(part for part in (clean(event.note), _signed_by(event.signer)) if part),
        )
        for event in events[: view.MAX_ROWS]
    ]
    if len(events) > view.MAX_ROWS:
        shown.append(("", "…", "", f"{len(events) - view.MAX_ROWS} more in {paths.KEYSET_CUSTODY}"))
    return shown


def _signed_by(signer: str) -> str:
    return f"signed with key {signer[:16]}…" if signer else "unsigned"


def _short(text: str) -> str:
    """Return outside text with its digests cut to what a person compares at a glance."""
    return " ".join(f"{word[:16]}…" if len(word) == 64 else word for word in clean(text).split(" "))


def _recorded(source: Mapping[str, JsonValue], name: str) -> str:
    value = source.get(name)
    return clean(_plain(value)) if value not in (None, "") else "not recorded"


def _plain(value: JsonValue) -> str:
    if value is None or value == "":
        return view.NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else str(value)


def _time(value: str) -> str:
    """Return ``2026-11-22T10:00:00.000Z`` as ``2026-11-22 10:00:00 UTC``; other texts as they are."""
    text = clean(value, limit=40)
    return f"{text[:10]} {text[11:19]} UTC" if len(text) == 24 and text.endswith("Z") else text
