"""Every parser of outside bytes against flipped, cut, doubled and spliced input.

Two promises. All parsers: whatever the bytes, only errors of the package's own tree leave. Parsers of what is signed,
encrypted or committed to: nothing altered is ever accepted, not even in another spelling.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import authorities
import bundles
import numpy as np
import pyrage
import pytest
from cases import SEED, seal_keys, small_protocol
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditor import guard_keys, models
from auditor.analysis import PanelMember
from auditor.canonical import canonical_bytes, parse_canonical_object
from auditor.draws import Secret
from auditor.errors import AuditorError
from auditor.evidence.acts import HandAct
from auditor.evidence.commitment import open_commitment, unpack_material
from auditor.evidence.cosign import Cosignature, CosignerRole, cosignature_path, sign_cosignature, verify_cosignature
from auditor.evidence.custody import read_custody
from auditor.evidence.declarations import declarations_bytes, declarations_from_toml, form_text, read_declarations
from auditor.evidence.encryption import Locks, Unlocks, decrypt, encrypt, identities_from_text
from auditor.evidence.head import verify_head
from auditor.evidence.imported import read_foreign
from auditor.evidence.keyset import check_sealed, pack, parse_sealed, unpack
from auditor.evidence.ledger import Showing, append_showing, read_ledger
from auditor.evidence.manifest import read_manifest, verify_manifest
from auditor.evidence.open_custody import OpenLog, new_event, read_log, signing_event
from auditor.evidence.openings import read_openings
from auditor.evidence.panel import Panel, PanelModel, panel_bytes, parse_panel
from auditor.evidence.raw_answers import read_raw_answers
from auditor.evidence.reading import Reading, read_answers, reading_of
from auditor.evidence.revocation import read_crls
from auditor.evidence.safe_npz import write_npz
from auditor.evidence.seal import open_seal
from auditor.evidence.signing import SigningKey, public_from_pem, read_envelope
from auditor.evidence.timestamps import read_roots, verify_tokens
from auditor.evidence.transcript import read_transcript
from auditor.models import describe, read_description
from auditor.report.inputs import from_files
from auditor.results import headline
from auditor.study.config import read_config
from auditor.suspects.http import profile_file
from auditor.suspects.http.answers import parse_answers, parse_description

DRY_RUN = Path(__file__).parent.parent.parent / "docs" / "examples" / "dry-run-digits.toml"


@dataclass(frozen=True)
class Parser:
    """One parser with an input it accepts."""

    good: bytes
    read: Callable[[bytes], object]
    strict: bool = False
    """True when no altered input may be accepted."""
    n_examples: int = 60


@cache
def material() -> dict[str, Parser]:
    """Return every parser by name; made once."""
    folder = Path(_folder().name)
    made = bundles.make_bundle(folder / "bundle")
    opened = seal_keys(folder / "k.npz", small_protocol())
    files = {path: (made.folder / path).read_bytes() for path in _names(made.folder)}
    manifest, signature = files["manifest.json"], files["manifest.dsse.json"]
    keys, seal = made.opened.keys, made.opened.seal
    return {
        **_signed(files, made, keys, seal, (folder / "k.npz").read_bytes(), opened),
        **_later(folder, files, made, seal),
        **_from_users(folder),
        "manifest": Parser(manifest, read_manifest),
        "manifest under its signature": Parser(
            manifest, lambda d: verify_manifest(d, signature, examiner_public=made.examiner.public), strict=True
        ),
        "envelope": Parser(signature, lambda d: read_envelope(d, what="t")),
        "transcript": Parser(files["transcript.jsonl"], read_transcript),
        "custody": Parser(files["custody.jsonl"], read_custody),
        "canonical JSON": Parser(files["protocol.json"], lambda d: parse_canonical_object(d, what="t")),
        "results": Parser(
            files["results.json"], lambda d: headline(parse_canonical_object(d, what="results.json"))
        ),
        "results in a report": Parser(files["results.json"], lambda d: from_files({**files, "results.json": d})),
        "ledger": Parser(_ledger(folder, seal), lambda d: read_ledger(_written(folder, d), seal=seal)),
        "key set": Parser(pack(keys), unpack),
        "foreign key set": Parser(
            write_npz({"x": keys.inputs} | {name: _column(len(keys.inputs)) for name in ("natural", "expected")}),
            lambda d: read_foreign(d, what="t"),
        ),
        "public key": Parser(files["certs/owner.pub.pem"], lambda d: public_from_pem(d, what="t")),
        "private key": Parser(made.owner.to_pem(), SigningKey.from_pem),
        "PKCS#12": Parser(_pkcs12(made.owner), lambda d: SigningKey.from_pkcs12(d, passphrase=b"pw"), n_examples=25),
        "age identities": Parser(
            f"# key\n{pyrage.x25519.Identity.generate()}\n".encode(),
            lambda d: identities_from_text(d.decode("utf-8", "replace"), what="t"),
        ),
        "raw answers": Parser(b'{"answers":[{"label":1,"scores":[0.5,0.5]}]}', read_raw_answers),
        "service's answers": Parser(
            b'{"answers":[{"label":1,"scores":[0.25,0.75]},{"label":0}]}', lambda d: parse_answers(d, n_labels=2)
        ),
        "service's description": Parser(
            b'{"answers":"scores","classes":["a","b"],"input_shape":[1,2,2],"max_batch":8,"name":"x"}',
            parse_description,
        ),
        "model's description": Parser(_description(), read_description),
    }  # fmt: skip


def _signed(files, made, keys, seal, sealed_file, opened) -> dict[str, Parser]:
    commitment = unpack_material(opened.keys.generation).commitment
    identity = pyrage.x25519.Identity.generate()
    locked = encrypt(pack(keys), Locks(recipients=(str(identity.to_public()),)))
    unlocks = Unlocks(identities=(str(identity),))
    return {
        "seal": Parser(files["seal/k.seal.json"], open_seal, strict=True),
        "transcript head": Parser(
            files["transcript.head.dsse.json"],
            lambda d: verify_head(d, examiner_public=made.examiner.public),
            strict=True,
        ),
        "manifest's signature": Parser(
            files["manifest.dsse.json"],
            lambda d: verify_manifest(files["manifest.json"], d, examiner_public=made.examiner.public),
            strict=True,
        ),
        "openings": Parser(files["openings.json"], lambda d: read_openings(d, seal=seal), strict=True),
        "sealed key set": Parser(sealed_file, lambda d: check_sealed(parse_sealed(d)), strict=True),
        "commitment": Parser(commitment, open_commitment, strict=True),
        "material of the generation": Parser(opened.keys.generation, unpack_material),
        "age file": Parser(
            locked, lambda d: decrypt(d, enc="age-x25519", unlocks=unlocks, what="t"), strict=True
        ),
    }  # fmt: skip


def _later(folder, files, made, seal) -> dict[str, Parser]:
    """What is added to a bundle beside or after the signature."""
    manifest, witness = files["manifest.json"], SigningKey.generate()
    endorsement = verify_manifest(manifest, files["manifest.dsse.json"], examiner_public=made.examiner.public)
    at = "2026-11-22T12:00:00.000Z"
    signed = Cosignature(
        role=CosignerRole.WITNESS, public=witness.public, note="saw it", signed_at=at, tool_version="1"
    )
    path = cosignature_path(witness.fingerprint)
    log = OpenLog(folder / "log.jsonl", anchor="ab" * 32)
    for event in (new_event(HandAct.HANDED_OVER, by="me", note="", at=at), signing_event(manifest, at=at)):
        log.add(event, key=witness)
    answered = PanelMember(keys=(True, *(False,) * (seal.protocol.n_keys - 2), None), sham_hits=0)
    model = PanelModel(name="m", architecture="mlp", seed="1", weights_sha256="cd" * 32, answers=answered)
    declarations = declarations_from_toml(form_text().encode(), what="t")
    return {
        "cosignature": Parser(
            sign_cosignature(manifest, signed, key=witness),
            lambda d: verify_cosignature(d, manifest=manifest, path=path, endorsement=endorsement),
            strict=True,
        ),
        "custody log that goes on": Parser(
            (folder / "log.jsonl").read_bytes(), lambda d: read_log(d, anchor="ab" * 32, what="t")
        ),
        "panel": Parser(
            panel_bytes(Panel(keyset_id=seal.keyset_id, models=(model,))), lambda d: parse_panel(d, seal=seal)
        ),
        "guard": Parser(guard_keys.pack(_guard()), guard_keys.unpack, n_examples=40),
        "declarations": Parser(declarations_bytes(declarations), lambda d: read_declarations(d, what="t")),
        "revocation list": Parser(_crl(), lambda d: read_crls(d, what="t")),
    }


def _from_users(folder: Path) -> dict[str, Parser]:
    """What people write by hand, and answers that are read as they say."""
    profiles = Path(profile_file.__file__).parent / "profiles"
    reading = Reading(answers="predictions", label_map={"cat": 0, "dog": 1})
    return {
        "declarations form": Parser(form_text().encode(), lambda d: declarations_from_toml(d, what="t")),
        "endpoint profile": Parser(
            (profiles / "torchserve.toml").read_bytes(), lambda d: profile_file.parse_profile(d, name="t")
        ),
        "recorded reading": Parser(reading.as_text().encode(), lambda d: reading_of(d.decode("utf-8", "replace"))),
        "answers through a profile": Parser(
            b'{"predictions":[{"label":"cat","score":0.75},{"label":"dog","score":0.5}]}',
            lambda d: read_answers(d, reading),
        ),
        "dry run": Parser(DRY_RUN.read_bytes(), lambda d: read_config(_written(folder, d))),
    }


def _guard():
    rng = np.random.default_rng(3)
    inputs, labels = rng.integers(0, 256, (60, 1, 4, 4), dtype=np.uint8), np.arange(60, dtype=np.int64) % 4
    chosen, key = guard_keys.GuardSettings(), guard_keys.projection_key(SEED)
    return guard_keys.GuardKeys(
        settings=chosen, classes=("a", "b", "c", "d"), shape=(1, 4, 4), model_sha256="ab" * 32, projection_key=key,
        thresholds=guard_keys.median_thresholds(inputs=inputs, labels=labels, n_classes=4, key=key, bits=chosen.bits),
        reference=np.full((3, 4), 250_000, dtype=np.int64), clients=("alice",),
        client_keys=guard_keys.client_keys(Secret(SEED), ("alice",)),
    )  # fmt: skip


def _crl() -> bytes:
    made = datetime(2026, 1, 1, tzinfo=UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    revoked = x509.RevokedCertificateBuilder().serial_number(7).revocation_date(made).build()
    crl = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(made)
    crl = crl.next_update(made + timedelta(days=900)).add_revoked_certificate(revoked)
    return crl.sign(Ed25519PrivateKey.from_private_bytes(SEED), None).public_bytes(serialization.Encoding.PEM)


@cache
def _folder() -> TemporaryDirectory:
    return TemporaryDirectory(prefix="parsers-")


def _names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def _column(length: int):
    return np.full(length, 1, dtype="<i4")


def _ledger(folder: Path, seal) -> bytes:
    path = folder / "ledger.jsonl"
    for number in range(3):
        showing = Showing(
            at="2026-11-22T10:00:00.000Z", keyset_id=seal.keyset_id, suspect="http://x", by="judge",
            transcript_head=f"{number:064x}", keys=(number,),
        )  # fmt: skip
        append_showing(path, showing, seal=seal)
    return path.read_bytes()


def _written(folder: Path, data: bytes) -> Path:
    path = folder / f"ledger-{os.getpid()}.jsonl"
    path.write_bytes(data)
    return path


def _pkcs12(key: SigningKey) -> bytes:
    made = Ed25519PrivateKey.from_private_bytes(SEED)
    return pkcs12.serialize_key_and_certificates(b"me", made, None, None, BestAvailableEncryption(b"pw"))


def _description() -> bytes:
    described = replace(describe("mlp", input_shape=(1, 8, 8), classes=("a", "b")), weights_sha256="ab" * 32)
    return canonical_bytes(models._description_object(described)) + b"\n"


NAMES = sorted(
    {
        "PKCS#12", "age file", "age identities", "canonical JSON", "commitment", "custody", "envelope",
        "foreign key set", "key set", "ledger", "manifest", "manifest under its signature", "manifest's signature",
        "material of the generation", "model's description", "openings", "private key", "public key", "raw answers",
        "results", "results in a report", "seal", "sealed key set", "service's answers", "service's description",
        "transcript", "transcript head", "cosignature", "custody log that goes on", "panel", "guard", "declarations",
        "revocation list", "declarations form", "endpoint profile", "recorded reading", "answers through a profile",
        "dry run",
    }
)  # fmt: skip


def altered(good: bytes, data: st.DataObject) -> bytes:
    """Draw one alteration of ``good``: flipped bytes, a cut, a piece doubled, dropped or overwritten."""
    place = data.draw(st.integers(0, len(good) - 1))
    length = data.draw(st.integers(1, 40))
    piece = data.draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(_NASTY)))
    return data.draw(
        st.sampled_from(
            [
                good[:place] + bytes([good[place] ^ (1 << length % 8)]) + good[place + 1 :],
                good[:place],
                good[place:],
                good[:place] + good[place : place + length] + good[place:],
                good[:place] + good[place + length :],
                good[:place] + piece + good[place:],
                good[:place] + piece + good[place + len(piece) :],
                good + piece,
            ]
        )
    )


_NASTY = (
    b"\x00",
    b"\xff\xfe",
    b'"',
    b"{",
    b"[" * 400,
    b"NaN",
    b"1e999",
    b"-0",
    b"\n",
    b"\r\n",
    b"\xed\xa0\x80",
    b"9" * 400,
)


def check_message(error: AuditorError) -> None:
    """An error is one line for a person."""
    assert "\n" not in str(error)
    assert str(error)


def test_the_list_is_complete_and_the_good_inputs_are_accepted():
    assert sorted(material()) == NAMES
    for name, parser in material().items():
        assert parser.read(parser.good) is not None, name


@pytest.mark.parametrize("name", NAMES)
def test_altered_input(name):
    parser = material()[name]

    @settings(max_examples=parser.n_examples, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def run(data):
        bad = altered(parser.good, data)
        if bad == parser.good:
            return
        try:
            parser.read(bad)
        except AuditorError as error:
            check_message(error)
        else:
            assert not parser.strict, "altered input was accepted"

    run()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "data", [b"", b"\x00" * 64, b"\xff" * 64, b"[" * 100_000, b'{"a":' * 50_000, b"PK\x03\x04" * 9]
)
def test_arbitrary_input(name, data):
    try:
        material()[name].read(data)
    except AuditorError as error:
        check_message(error)


def test_json_with_doubled_keys_is_refused_by_every_parser_of_json():
    for name, parser in material().items():
        if not parser.good.startswith(b"{") or name == "raw answers":
            continue
        first = next(iter(json.loads(parser.good.splitlines()[0])))
        doubled = b'{"' + first.encode() + b'":0,' + parser.good[1:]
        with pytest.raises(AuditorError):
            parser.read(doubled)


def test_tokens(tmp_path):
    authority = authorities.Authority(tmp_path, start=datetime.now(UTC) - timedelta(days=2))
    token = authority.stamp(b"data")

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def run(data):
        bad = altered(token, data)
        try:
            (found,) = verify_tokens({"t.1.tsr": bad}, data=b"data", roots=authority.roots)
        except AuditorError as error:
            check_message(error)
        else:
            # Nothing signed was changed where it still verifies: the time is the one that was stamped.
            original = verify_tokens({"t.1.tsr": token}, data=b"data", roots=authority.roots)[0]
            assert found.state is not original.state or found.token.stamped_at == original.token.stamped_at

    run()


def test_roots(tmp_path):
    good = authorities.Authority(tmp_path).root.pem

    @given(data=st.data())
    def run(data):
        try:
            read_roots(altered(good, data), what="t")
        except AuditorError as error:
            check_message(error)

    run()
