"""The sections of a results object that rest on a drawn table of target classes."""

from math import log10

from auditor.analysis import Decided, Levels
from auditor.analysis.drawn_table import Channel, ClientFinding, TableFindings
from auditor.canonical import JsonValue, decimal_string
from auditor.records import NullBasis, Protocol
from auditor.results.numbers import LOG10_2, power_of_ten

MAX_CLIENTS_LISTED = 1_000
CHANNEL_NOTES = {
    Channel.SCORES: "ranks of the revealed scores; classes that were not revealed are tied last",
    Channel.CONFIDENCE: "only the score of the first label came: the drawn signs are tested, which gives no p-value "
    "below 2 to the power of minus the cells, and silence says nothing against a derivation",
    Channel.LABELS: "only first labels are read: supporting evidence at most. In the benchmark, with 5,000 mixed "
    "pictures, about a third of the surrogates trained on scores reached p = 1e-6 this way and three quarters 1e-3, "
    "fewer after fine-tuning, and none of those trained on labels; silence says nothing against a derivation",
}
SIGN_RATE = 0.5


def table_decision(found: TableFindings | None, levels: Levels, *, complete: bool) -> Decided:
    """Return the decision of the table's test; without every planned probe nothing is decided.

    Where only first labels or their scores came, or no draw could have reached the level, silence says nothing.
    """
    rejected = found is not None and complete and any(each.named for each in found.clients)
    uninformative = found is None or found.channel is not Channel.SCORES or found.log10_p_least > log10(levels.test)
    return Decided(rejected=rejected, futile=False, outcome=None, uninformative=uninformative)


def table_sections(
    found: TableFindings | None, levels: Levels, protocol: Protocol, *, alpha: float, family: int
) -> dict[str, JsonValue]:
    """Return the sections that replace the general ones; none for other null bases."""
    if protocol.null_basis is not NullBasis.DRAWN_TABLE:
        return {}
    return {
        **({} if found is None or found.channel is not Channel.CONFIDENCE else {"null": _sign_null()}),
        "detection": _detection(found),
        "test": _test(found, levels, protocol, alpha=alpha, family=family),
        "fixed_test": None
        if found is None
        else {
            "name": "Chernoff bound on the known law, smallest of all clients, not adjusted",
            "log10_p": decimal_string(min(each.test.law.log10_p_chernoff for each in found.clients)),
        },
        "table": None if found is None else _table(found),
    }


def _detection(found: TableFindings | None) -> dict[str, JsonValue]:
    hits, trials = (0, 0) if found is None else (found.best.test.first_ranked, found.best.test.n_cells)
    return {
        "hits": hits,
        "trials": trials,
        "rate": decimal_string(hits / trials) if trials else None,
        "interval": None,
        "bets": None,
    }


def _test(
    found: TableFindings | None, levels: Levels, protocol: Protocol, *, alpha: float, family: int
) -> dict[str, JsonValue]:
    best = 0.0 if found is None else min(each.log10_p_holm for each in found.clients)
    log10_p = min(0.0, protocol.grinding_log2 * LOG10_2 + log10(family) + best)
    log10_e = 0.0 if found is None else found.log10_e
    n_clients = 0 if found is None else len(found.clients)
    return {
        "name": f"exact law of the drawn {_what(found)}, Holm over {n_clients} client{'' if n_clients == 1 else 's'}",
        "design": protocol.design.value,
        "alpha": decimal_string(alpha),
        "alpha_test": decimal_string(levels.test),
        "grinding_log2": protocol.grinding_log2,
        "log10_test_p": decimal_string(best),
        "log10_p": decimal_string(log10_p),
        "p_value": power_of_ten(log10_p),
        "log10_e": decimal_string(log10_e),
        "e_value": power_of_ten(log10_e),
        "p_min": decimal_string(protocol.p_min),
        "futility": decimal_string(protocol.futility),
        "ranks": None,
        "steps": [],
    }


def _what(found: TableFindings | None) -> str:
    return "signs" if found is not None and found.channel is Channel.CONFIDENCE else "table"


def _sign_null() -> dict[str, JsonValue]:
    return {
        "kind": NullBasis.DRAWN_TABLE.value,
        "basis": "fair signs drawn for every cell of the table",
        "rate": decimal_string(SIGN_RATE),
        "floor": None,
        "shams": None,
        "panel": None,
        "pattern_rank": None,
    }


def _table(found: TableFindings) -> dict[str, JsonValue]:
    listed = sorted(found.clients, key=lambda each: each.test.log10_p)[:MAX_CLIENTS_LISTED]
    return {
        "channel": found.channel.value,
        "channel_note": CHANNEL_NOTES[found.channel],
        "cells": found.best.test.n_cells,
        "probes": found.best.test.n_probes,
        "missing": found.missing,
        "log10_p_least": decimal_string(found.log10_p_least),
        "named": [each.client for each in found.clients if each.named],
        "clients": [_client(each) for each in listed],
        "n_clients": len(found.clients),
        "redraws": {
            "client": found.best.client,
            "statistic": decimal_string(found.best.test.law.statistic),
            "low": decimal_string(found.low),
            "high": decimal_string(found.high),
            "counts": list(found.histogram),
        },
    }


def _client(found: ClientFinding) -> dict[str, JsonValue]:
    test = found.test
    return {
        "client": found.client,
        "statistic": decimal_string(test.law.statistic),
        "z": decimal_string(test.law.z),
        "log10_p": decimal_string(test.law.log10_p_upper),
        "log10_p_chernoff": decimal_string(test.law.log10_p_chernoff),
        "log10_p_holm": decimal_string(found.log10_p_holm),
        "monte_carlo": {
            "draws": test.redraw.draws,
            "at_least_as_high": test.redraw.at_least_as_high,
            "p_value": decimal_string(test.redraw.p_value),
        },
        "cells_ranked_first": test.first_ranked,
        "named": found.named,
    }
