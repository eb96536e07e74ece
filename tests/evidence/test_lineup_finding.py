"""What dates say about a claim, on places made by hand."""

from types import SimpleNamespace

import pytest

from auditor.evidence.lineup_finding import Place
from auditor.evidence.whole_bundle import TrustedTime


def a_place(*, dated, sealed_at, stamped):
    def time(at):
        return None if at is None else TrustedTime(at=at, accuracy_ms=0)

    audit = SimpleNamespace(seal=SimpleNamespace(sealed_at=sealed_at), seal_time=time(stamped))
    return Place(candidate=None, audit=audit, dated=time(dated), replayed=False)


@pytest.mark.parametrize(
    ("dated", "sealed_at", "stamped", "before_seal", "before_proof"),
    [
        ("2025", "2026", "2027", True, True),
        # The owner's own date lies before the model's: it is believed against nobody, and shown as unproven.
        ("2025", "2020", "2027", False, True),
        ("2025", "2020", None, False, True),
        ("2025", "2020", "2021", False, False),
        # A model without a verified date shows nothing.
        (None, "2026", "2027", False, False),
        ("2026", "2026", "2026", False, False),
    ],
)
def test_dates(dated, sealed_at, stamped, before_seal, before_proof):
    place = a_place(dated=dated, sealed_at=sealed_at, stamped=stamped)
    assert (place.precedes_seal, place.precedes_proof) == (before_seal, before_proof)
