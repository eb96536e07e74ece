"""``check --strict``: a bundle for which nothing is left unchecked, and what each thing that is missing costs."""

import json
import logging
import re
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import authorities
import pytest
from cases import NONCE as DRAWN_WITH
from cases import TableSuspect, innocent, marked, seal_keys, small_protocol
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent / "evidence"))

from test_panel_record import a_panel

from auditor import casefile
from auditor.cli.app import app
from auditor.evidence.declarations import form_text
from auditor.evidence.signing import SigningKey, fingerprint
from auditor.report.inputs import read_folder
from auditor.report.signer import PASSPHRASE_VARIABLE
from auditor.time_authority import TimeAuthorities

NONCE = "5e" * 16
RENDERED = {"report.html rendered again", "report.pdf", "declarations and issued reports"}
"""Steps that --render asks for."""


@pytest.fixture(autouse=True)
def _no_handler_of_an_earlier_command():
    logging.getLogger("auditor").handlers.clear()


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def a_list(issuer, path):
    """Write an authority's list of the next day, on which nothing is revoked."""
    made = casefile.utc_now() + timedelta(days=1)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    crl = builder.last_update(made).next_update(made + timedelta(days=30)).sign(issuer.key, hashes.SHA256())
    path.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Return a filed bundle and, by what it is for, every option of a judge who was handed all there is."""
    folder = tmp_path_factory.mktemp("strict")
    tsa = authorities.Authority(folder / "tsa", name="TSA")
    ca = authorities.Authority(folder / "ca", name="CA", eku=None)
    person = authorities.issue(
        "A. Examiner", issuer=ca.between, ca=False, start=casefile.utc_now() - timedelta(days=9), days=99, bits=3072
    )
    p12, between, locked = folder / "me.p12", [ca.between.certificate], BestAvailableEncryption(b"pw")
    p12.write_bytes(pkcs12.serialize_key_and_certificates(b"me", person.key, person.certificate, between, locked))
    examiner, witness = SigningKey.generate(), SigningKey.generate()
    for key, name in ((examiner, "e.pem"), (witness, "w.pem")):
        key.write_pem(folder / name)
    with authorities.serving(tsa.reply) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv(PASSPHRASE_VARIABLE, "pw")
        opened = seal_keys(folder / "k.npz", small_protocol())
        (folder / "k.seal.json").write_bytes(opened.envelope)
        for command in (
            ("stamp", folder / "k.seal.json", "--tsa", url),
            ("custody", "add", folder / "k.npz", "--event", "stored", "--by", "owner"),
        ):
            assert run(*command).exit_code == 0
        asked = casefile.request(
            opened, alpha=None, max_queries=None, operator="A. Examiner", judge_nonce=bytes.fromhex(NONCE)
        )
        made = casefile.verify(
            opened=opened, suspect=TableSuspect(marked), folder=folder / "a", examiner=examiner, signer_file=p12,
            request=replace(asked, panel=a_panel(opened, [innocent] * 60)),
            seal_tokens=casefile.seal_tokens(folder / "k.npz", seal=None), authorities=TimeAuthorities([url]),
        )  # fmt: skip
        assert made.headline.status == "supported"
        text = re.sub(r'^(\w+) = ""$', r'\1 = "said"', form_text(), flags=re.M)
        text = text.replace('report = "said"', f'report = "{read_folder(made.folder).report_id}"', 1)
        (folder / "d.toml").write_text(text.replace('date = "said"', f'date = "{casefile.utc_now():%Y-%m-%d}"'))
        for command in (
            ("cosign", made.folder, "--key", folder / "w.pem", "--role", "witness"),
            ("report", made.folder, "--declarations", folder / "d.toml", "--examiner-key", folder / "e.pem",
             "--report-identity", p12, "--tsa", url),
        ):  # fmt: skip
            done = run(*command)
            assert done.exit_code == 0, done.output
        done = run("custody", "add", made.folder, "--event", "handed-over", "--by", "A. Examiner")
        assert done.exit_code == 0, done.output
    judge = {
        "expected keys": ["--owner-key", fingerprint(bytes.fromhex(opened.seal.owner_public_key)),
                          "--examiner-key", examiner.fingerprint],
        "trusted time": ["--tsa-root", tsa.root_path],
        "judge's randomness": ["--judge-nonce", NONCE],
        "generation of the keys": ["--keyset", folder / "k.npz", "--drawn-with", DRAWN_WITH.hex()],
        "further signatures": ["--witness-key", witness.fingerprint],
        "custody after signing": ["--custody-head", re.findall(r"[0-9a-f]{64}", done.stdout)[-1]],
        "certificate of the PDF": ["--trust-root", ca.root_path],
        "revocation of certificates": [
            option
            for number, issuer in enumerate([tsa.root, ca.root, ca.between])
            for option in ("--crl", a_list(issuer, folder / f"{number}.crl"))
        ],
        "report.pdf": ["--render"],
    }  # fmt: skip
    return made.folder, judge


def outcomes(folder, judge, *more):
    done = run("check", folder, "--json", *more, *(option for options in judge.values() for option in options))
    told = json.loads(done.stdout)
    return done.exit_code, {step["title"]: (step["outcome"], step["detail"]) for step in told["steps"]}


def test_a_bundle_can_pass_every_step(case):
    code, found = outcomes(*case, "--strict")
    assert {title: told for title, told in found.items() if told[0] != "PASS"} == {}
    assert code == 0
    assert len(found) == 22


@pytest.mark.parametrize(
    ("missing", "open_steps"),
    [
        ("expected keys", {"expected keys"}),
        ("trusted time", {"trusted time"}),
        ("judge's randomness", {"judge's randomness"}),
        ("generation of the keys", {"generation of the keys"}),
        ("further signatures", {"further signatures"}),
        ("certificate of the PDF", {"certificate of the PDF", "revocation of certificates"}),
        ("revocation of certificates", {"revocation of certificates"}),
        ("custody after signing", set()),
    ],
)
def test_what_the_judge_does_not_bring_is_not_checked_and_strict_fails(case, missing, open_steps):
    folder, judge = case
    less = {name: options for name, options in judge.items() if name not in (missing, "report.pdf")}
    code, found = outcomes(folder, less, "--strict")
    assert code == 5
    assert {title for title, told in found.items() if told[0] == "NOT CHECKED"} == open_steps | RENDERED
    assert not [title for title, told in found.items() if told[0] == "FAIL"]
