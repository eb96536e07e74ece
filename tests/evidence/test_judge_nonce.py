"""The judge's nonce draws which keys are asked, and `check` draws it again."""

import json

import pyrage
import pytest
from cases import NONCE as DRAWN_WITH
from cases import TableSuspect, marked, seal_keys, small_protocol
from protocols import a_protocol

from auditor import casefile
from auditor.errors import SealError
from auditor.evidence.check import CheckOutcome, check_bundle
from auditor.evidence.encryption import Locks, Unlocks
from auditor.evidence.keyset import open_sealed, write_sealed
from auditor.evidence.schedule import draw_schedule, judge_seed
from auditor.records import SampleKind

NONCE = bytes(range(32))
ROOT = "ab" * 32


def keys_of(schedule):
    return [p.index for p in schedule if p.kind is SampleKind.KEY and not p.repeat]


def test_the_nonce_draws_the_keys_and_keeps_the_rest():
    protocol = a_protocol()
    sealed, drawn = draw_schedule(protocol), draw_schedule(protocol, judge=judge_seed(NONCE, ROOT))
    assert sorted((p.index, p.repeat) for p in sealed if not p.repeat) == sorted(
        (p.index, p.repeat) for p in drawn if not p.repeat
    )
    assert keys_of(sealed) == list(range(60))
    assert keys_of(drawn) != keys_of(sealed)
    assert sorted(keys_of(drawn)) == list(range(60))
    opening = drawn[: protocol.opening_keys + protocol.n_shams + protocol.n_controls + protocol.n_repeats]
    assert len(set(keys_of(opening))) == protocol.opening_keys
    assert [p.position for p in drawn] == list(range(len(drawn)))


def test_every_key_is_equally_likely_to_be_asked():
    protocol = a_protocol(n_keys=12, opening_keys=3, n_shams=4, n_sham_patterns=2, n_controls=2, n_repeats=0)
    counts = dict.fromkeys(range(12), 0)
    for number in range(2000):
        for index in keys_of(draw_schedule(protocol, judge=judge_seed(number.to_bytes(16, "big"), ROOT)))[:3]:
            counts[index] += 1
    # 500 ± 4.9 standard deviations of a binomial with 2000 trials and rate 1/4.
    assert all(405 < n < 595 for n in counts.values())


def test_nonce_and_root_both_matter():
    seeds = {judge_seed(nonce, root) for nonce in (NONCE, b"\x01" * 16) for root in (ROOT, "00" * 32)}
    assert len(seeds) == 4
    for wrong in (b"", b"\x01" * 15, b"\x01" * 65):
        with pytest.raises(SealError):
            judge_seed(wrong, ROOT)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nonce")
    opened = seal_keys(folder / "k.npz", small_protocol())
    made = casefile.verify(
        opened=opened,
        suspect=TableSuspect(marked),
        folder=folder / "audit",
        request=casefile.request(opened, alpha=None, max_queries=None, operator="", judge_nonce=NONCE),
    )
    return folder, made


def step(folder, title, **options):
    report = check_bundle(
        folder / "audit", owner_fingerprint=None, examiner_fingerprint=None, render_html=None, check_pdf=None, **options
    )
    return next(s for s in report.steps if s.title == title)


def test_an_audit_with_a_nonce_opens_exactly_the_drawn_keys(case):
    folder, made = case
    assert made.headline.status == "supported"
    seal = open_sealed(folder / "k.npz").seal
    asked = made.results["queries"]["keys"]
    drawn = keys_of(draw_schedule(seal.protocol, judge=judge_seed(NONCE, seal.merkle_root)))[:asked]
    openings = json.loads((folder / "audit" / "openings.json").read_bytes())
    opened = {s["index"] for s in openings["samples"] if s["kind"] == "key"}
    assert opened == set(drawn) != set(range(asked))


def test_check_compares_with_the_judges_own_nonce(case):
    folder, _ = case
    title = "judge's randomness"
    assert step(folder, title, judge_nonce=NONCE).outcome is CheckOutcome.PASS
    assert step(folder, title).outcome is CheckOutcome.NOT_CHECKED
    assert NONCE.hex() in step(folder, title).detail
    assert step(folder, title, judge_nonce=b"\x01" * 32).outcome is CheckOutcome.FAIL


def test_check_repeats_the_generation_for_whoever_holds_the_key_set(case):
    folder, _ = case
    title = "generation of the keys"
    assert step(folder, title).outcome is CheckOutcome.NOT_CHECKED

    def mine(seal_envelope):
        return open_sealed(folder / "k.npz", seal_envelope=seal_envelope)

    found = step(folder, title, open_keyset=mine, drawn_with=DRAWN_WITH)
    assert found.outcome is CheckOutcome.PASS, found.detail
    # A value that nobody but the owner names may have been known before the commitment.
    unconfirmed = step(folder, title, open_keyset=mine)
    assert unconfirmed.outcome is CheckOutcome.NOT_CHECKED
    assert "not given for comparison" in unconfirmed.detail
    assert step(folder, title, open_keyset=mine, drawn_with=b"\x23" * 32).outcome is CheckOutcome.FAIL
    other = seal_keys(folder / "other.npz", small_protocol())
    assert other.envelope

    def foreign(seal_envelope):
        return open_sealed(folder / "other.npz", seal_envelope=seal_envelope)

    assert step(folder, title, open_keyset=foreign).outcome is CheckOutcome.FAIL


def test_an_encrypted_key_set_needs_its_key_to_be_checked(case):
    folder, _ = case
    identity = pyrage.x25519.Identity.generate()
    opened = open_sealed(folder / "k.npz")
    locks = Locks(recipients=(str(identity.to_public()),))
    write_sealed(folder / "locked.npz", keys=opened.keys, seal_envelope=opened.envelope, locks=locks)

    def without(seal_envelope):
        return open_sealed(folder / "locked.npz", seal_envelope=seal_envelope)

    def with_it(seal_envelope):
        unlocks = Unlocks(identities=(str(identity),))
        return open_sealed(folder / "locked.npz", seal_envelope=seal_envelope, unlocks=unlocks)

    title = "generation of the keys"
    assert step(folder, title, open_keyset=without).outcome is CheckOutcome.NOT_CHECKED
    assert step(folder, title, open_keyset=with_it, drawn_with=DRAWN_WITH).outcome is CheckOutcome.PASS
