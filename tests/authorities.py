"""Real time authorities for tests: throw-away certificates, tokens by stock tools, a small HTTP server in front."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from auditor.evidence import timestamps

CONFIG = """\
[ tsa ]
default_tsa = local
[ local ]
dir = {folder}
serial = $dir/serial
signer_cert = $dir/tsa.pem
signer_key = $dir/tsa.key
{certs}
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1
ordering = no
tsa_name = yes
ess_cert_id_chain = no
ess_cert_id_alg = sha256
signer_digest = sha256
"""

Reply = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Party:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def issue(
    name: str,
    *,
    issuer: Party | None,
    ca: bool,
    start: datetime,
    days: int,
    eku: x509.ExtendedKeyUsage | None = None,
    eku_critical: bool = True,
) -> Party:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signing_key = key if issuer is None else issuer.key
    usage = x509.KeyUsage(
        digital_signature=not ca, content_commitment=not ca, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
    )
    if eku is not None:
        builder = builder.add_extension(eku, critical=eku_critical)
    return Party(certificate=builder.sign(signing_key, hashes.SHA256()), key=key)


STAMPING = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
SERVING = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


class Authority:
    """A root, an intermediate and a time-stamping certificate in a folder of their own."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "A",
        start: datetime | None = None,
        days: int = 3650,
        eku: x509.ExtendedKeyUsage | None = STAMPING,
        eku_critical: bool = True,
        with_chain: bool = False,
        direct: bool = True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        start = start or datetime.now(UTC) - timedelta(days=1)
        long_ago = datetime(2000, 1, 1, tzinfo=UTC)
        self.folder = folder
        self.root = issue(f"root {name}", issuer=None, ca=True, start=long_ago, days=36500)
        self.between = issue(f"between {name}", issuer=self.root, ca=True, start=long_ago, days=36500)
        self.signer = issue(
            f"tsa {name}",
            issuer=self.root if direct else self.between,
            ca=False,
            start=start,
            days=days,
            eku=eku,
            eku_critical=eku_critical,
        )
        self.roots = (self.root.certificate,)
        self.root_path = folder / "root.pem"
        self.root_path.write_bytes(self.root.pem)
        (folder / "chain.pem").write_bytes(self.between.pem + self.root.pem)
        (folder / "tsa.pem").write_bytes(self.signer.pem)
        (folder / "tsa.key").write_bytes(self.signer.key_pem)
        (folder / "serial").write_text("01\n")
        certs = "certs = $dir/chain.pem" if with_chain else ""
        (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder, certs=certs))
        self._lock = threading.Lock()

    def reply(self, query: bytes) -> bytes:
        """Answer a query as ``openssl ts -reply`` does, with the present time."""
        with self._lock:
            (self.folder / "q.tsq").write_bytes(query)
            command = ["openssl", "ts", "-reply", "-config", "tsa.cnf", "-section", "local", "-queryfile", "q.tsq"]
            subprocess.run([*command, "-out", "r.tsr"], cwd=self.folder, check=True, capture_output=True)
            return (self.folder / "r.tsr").read_bytes()

    def reply_at(self, query: bytes, moment: datetime) -> bytes:
        """Answer with a stated time, through pyHanko's own time stamper."""
        from asn1crypto import keys, tsp
        from asn1crypto import x509 as asn1_x509
        from pyhanko.sign.timestamps import DummyTimeStamper

        def load(party: Party) -> asn1_x509.Certificate:
            return asn1_x509.Certificate.load(party.certificate.public_bytes(serialization.Encoding.DER))

        der = self.signer.key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        stamper = DummyTimeStamper(load(self.signer), keys.PrivateKeyInfo.load(der), fixed_dt=moment)
        return stamper.request_tsa_response(tsp.TimeStampReq.load(query)).dump()

    def stamp(self, data: bytes, moment: datetime | None = None) -> bytes:
        """Return a token over ``data``, now or at a stated moment."""
        asked = query(data)
        return self.reply(asked) if moment is None else self.reply_at(asked, moment)


def query(data: bytes) -> bytes:
    """Return a query as ``openssl ts -query`` would write it."""
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    return TimestampRequestBuilder(data=data, hash_algorithm=HashAlgorithm.SHA256).build().as_bytes()


@contextmanager
def serving(reply: Reply, *, status: int = 200) -> Iterator[str]:
    """Serve an authority on localhost and yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = reply(body)
            self.send_response(status)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/tsr"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


CERTOMANCER = """\
pki-architectures:
  local:
    keyset: keys
    entity-defaults: {organization-name: test}
    entities:
      root: {common-name: root M}
      tsa: {common-name: tsa M}
    certs:
      root:
        subject: root
        issuer: root
        validity: {valid-from: "2000-01-01T00:00:00+0000", valid-to: "2500-01-01T00:00:00+0000"}
        extensions:
          - {id: basic_constraints, critical: true, value: {ca: true}}
          - {id: key_usage, critical: true, smart-value: {schema: key-usage, params: [key_cert_sign]}}
      tsa:
        subject: tsa
        issuer: root
        validity: {valid-from: "2000-01-01T00:00:00+0000", valid-to: "2100-01-01T00:00:00+0000"}
        extensions:
          - {id: key_usage, critical: true, smart-value: {schema: key-usage, params: [digital_signature]}}
          - {id: extended_key_usage, critical: true, value: [time_stamping]}
    services:
      time-stamping:
        tsa: {signing-cert: tsa}
keysets:
  keys:
    path-prefix: "."
    keys:
      root: {path: root.key.pem}
      tsa: {path: tsa.key.pem}
"""


def certomancer_authority(folder: Path) -> tuple[Reply, tuple[x509.Certificate, ...]]:
    """Return certomancer's authority, a second implementation, and its root."""
    import certomancer.default_plugins  # noqa: F401 - registers what the configuration names
    from asn1crypto import tsp
    from certomancer.registry import CertLabel, CertomancerConfig, ServiceLabel

    for name in ("root", "tsa"):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.key.pem").write_bytes(pem)
    (folder / "certomancer.yml").write_text(CERTOMANCER)
    config = CertomancerConfig.from_file(str(folder / "certomancer.yml"), key_search_dir=str(folder))
    architecture = config.get_pki_arch("local")
    service = architecture.service_registry.summon_timestamper(ServiceLabel("tsa"))
    root = x509.load_der_x509_certificate(architecture.get_cert(CertLabel("root")).dump())
    return (lambda query: service.request_tsa_response(tsp.TimeStampReq.load(query)).dump()), (root,)


def loosely_encoded(raw: bytes) -> bytes:
    """Return a token that says the same in BER: one length takes more bytes than DER allows."""
    status, token = timestamps._children(raw, tag=0x30)
    content_type, explicit = timestamps._children(token, tag=0x30)
    (signed,) = timestamps._children(explicit, tag=0xA0)
    version, algorithms, *rest = timestamps._children(signed, tag=0x30)
    longer = bytes([algorithms[0], 0x81, algorithms[1]]) + algorithms[2:]
    signed = timestamps._wrapped(0x30, [version, longer, *rest])
    token = timestamps._wrapped(0x30, [content_type, timestamps._wrapped(0xA0, [signed])])
    return timestamps._wrapped(0x30, [status, token])
