"""What the user asks of an audit, as a request: for a new one, and for one that goes on under its own terms."""

from auditor.audit import Request
from auditor.environment import environment
from auditor.errors import UsageError
from auditor.evidence.calibration import FIELD as CALIBRATION
from auditor.evidence.keyset import OpenedKeySet
from auditor.evidence.panel import Panel
from auditor.evidence.recompute import panel_of
from auditor.evidence.schedule import opening_length
from auditor.resumption import Stopped


def request(
    opened: OpenedKeySet,
    *,
    alpha: float | None,
    max_queries: int | None,
    operator: str,
    judge_nonce: bytes = b"",
) -> Request:
    """Return the request for a limit on all questions; stage 1 is always asked whole.

    Raises:
        UsageError: the limit does not suffice for stage 1.
    """
    protocol = opened.seal.protocol
    max_keys = None
    if max_queries is not None:
        spare = max_queries - opening_length(protocol)
        if spare < 0:
            raise UsageError(
                f"the first stage asks {opening_length(protocol)} questions; --max-queries {max_queries} is too few"
            )
        max_keys = min(protocol.n_asked, protocol.opening_keys + spare)
    return Request(
        alpha=alpha, max_keys=max_keys, judge_nonce=judge_nonce, operator=operator, environment=environment()
    )


def request_again(
    stopped: Stopped,
    opened: OpenedKeySet,
    *,
    alpha: float | None,
    max_queries: int | None,
    operator: str,
    judge_nonce: bytes = b"",
    batch_size: int | None = None,
    family: int = 1,
    panel: Panel | None = None,
    calibration: bool = False,
) -> Request:
    """Return the request that an audit was begun with; what the user states again must be the same.

    Raises:
        UsageError: an option states something else than what was fixed before the first question.
        EvidenceError: the record does not state it.
    """
    terms = stopped.terms
    recorded = None if stopped.transcript is None else panel_of(stopped.transcript, seal=opened.seal)
    stated = request(opened, alpha=alpha, max_queries=max_queries, operator=operator, judge_nonce=judge_nonce)
    contradictions = {
        "--alpha": alpha is not None and alpha != terms.alpha,
        "--max-queries": max_queries is not None and stated.max_keys != terms.max_keys,
        "--judge-nonce": bool(judge_nonce) and judge_nonce != terms.judge_nonce,
        "--examiner": bool(operator) and operator != terms.operator,
        "--family": family not in (1, terms.family),
        "--calibration": calibration and (stopped.transcript is None or CALIBRATION not in stopped.transcript.preamble),
        "--panel": panel is not None and panel != recorded,
        # The recorded size may be smaller than the one asked for, because the service declared a limit.
        "--batch-size": batch_size is not None and batch_size < terms.batch_size,
    }
    for option, contradicts in contradictions.items():
        if contradicts:
            raise UsageError(f"{option} is not what the audit in {stopped.folder} was begun with; leave it out")
    return Request(
        alpha=terms.alpha,
        max_keys=terms.max_keys,
        judge_nonce=terms.judge_nonce,
        deviations=terms.deviations,
        operator=terms.operator,
        family=terms.family,
        panel=recorded,
    )
