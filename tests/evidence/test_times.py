from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.errors import MalformedError
from auditor.evidence.times import check_utc, utc_text


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1000, 1, 1)))
def test_written_times_are_accepted_and_sort_like_the_times(moment):
    text = check_utc(utc_text(moment), what="t")
    assert datetime.fromisoformat(text) == moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def test_zones_are_converted():
    assert utc_text(datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))) == "2025-12-31T23:00:00.000Z"
    with pytest.raises(ValueError, match="zone"):
        utc_text(datetime(2026, 1, 1))


@pytest.mark.parametrize(
    "text",
    ["", "2026-11-22T10:00:00Z", "2026-11-22T10:00:00.000+00:00", "2026-02-30T10:00:00.000Z",
     "2026-11-22 10:00:00.000Z", "٢٠٢٦-11-22T10:00:00.000Z", "2026-11-22T10:00:00.000Z\n"],
)  # fmt: skip
def test_other_spellings_and_impossible_dates_are_refused(text):
    with pytest.raises(MalformedError):
        check_utc(text, what="t")
