"""Steps that ask what is there and who vouches for it: files, signatures, keys, time, seal, generation."""

from auditor.canonical import canonical_bytes
from auditor.errors import MalformedError, SealError, UsageError
from auditor.evidence import manifest as paths
from auditor.evidence.bundle import certificate_digest, read_bundle
from auditor.evidence.bundle_folder import list_files
from auditor.evidence.checks.base import NotCheckedError, Verified
from auditor.evidence.generation import rederive
from auditor.evidence.head import verify_head
from auditor.evidence.manifest import verify_manifest
from auditor.evidence.openings import read_openings
from auditor.evidence.seal import RandomnessSource, generation_problem, open_seal, protocol_object
from auditor.evidence.signing import fingerprint, public_from_pem
from auditor.evidence.trusted_time import check_times


def container(case: Verified) -> str:
    """Names, kinds, sizes and number of files; nothing is opened."""
    if not case.path.is_dir():
        raise MalformedError("no such folder")
    files = list_files(case.path)
    return f"{len(files)} files, {sum(size for _, size in files)} bytes, within the limits"


def manifest(case: Verified) -> str:
    """Every listed file is present and unaltered, and nothing else is there."""
    case.bundle = read_bundle(case.path)
    return f"{len(case.bundle.entries)} files equal their digests; none missing, none extra"


def signatures(case: Verified) -> str:
    """The examiner signed manifest and transcript head, the owner the seal, and they name the same objects."""
    contents = case.bundle.contents
    examiner = public_from_pem(contents[paths.EXAMINER_KEY], what=paths.EXAMINER_KEY)
    owner = public_from_pem(contents[paths.OWNER_KEY], what=paths.OWNER_KEY)
    case.endorsement = verify_manifest(case.bundle.manifest, case.bundle.manifest_envelope, examiner_public=examiner)
    case.head = verify_head(contents[paths.HEAD_ENVELOPE], examiner_public=examiner)
    case.seal = open_seal(contents[paths.SEAL])
    certificate = contents.get(paths.REPORT_CERTIFICATE)
    told = case.endorsement
    agreements = (
        ("examiner's key", told.examiner_fingerprint, fingerprint(examiner)),
        ("owner's key", told.owner_fingerprint, fingerprint(owner)),
        ("seal's key", case.seal.owner_public_key, owner.hex()),
        ("seal's digest", told.seal_sha256, case.bundle.sha256(paths.SEAL)),
        ("head's seal", case.head.seal_sha256, case.bundle.sha256(paths.SEAL)),
        (
            "report's certificate",
            told.report_certificate_sha256,
            "" if certificate is None else certificate_digest(certificate),
        ),
    )
    for what, signed, found in agreements:
        if signed != found:
            raise SealError(f"the {what} is not the one that was signed")
    return f"owner {told.owner_fingerprint}, examiner {told.examiner_fingerprint}"


def identities(case: Verified) -> str:
    """The keys are those whose fingerprints the caller got from elsewhere."""
    expected = (
        ("owner", case.expected.owner_fingerprint, case.endorsement.owner_fingerprint),
        ("examiner", case.expected.examiner_fingerprint, case.endorsement.examiner_fingerprint),
    )
    for role, wanted, found in expected:
        if wanted is not None and wanted.lower() != found:
            raise SealError(f"the {role}'s key is {found[:16]}…, not the expected one")
    open_roles = [role for role, wanted, _ in expected if wanted is None]
    if open_roles:
        raise NotCheckedError(f"no fingerprint was given for: {', '.join(open_roles)}")
    return "owner and examiner signed with the expected keys"


def trusted_time(case: Verified) -> str:
    """Tokens over seal, transcript head and manifest verify under the caller's roots and tell the order of an audit."""
    found = check_times(case.bundle, roots=case.expected.tsa_roots)
    if not found.complete:
        raise NotCheckedError(found.detail)
    return found.detail


def sealed_samples(case: Verified) -> str:
    """The opened samples lead to the sealed root, and the protocol is the sealed one."""
    contents = case.bundle.contents
    if contents[paths.PROTOCOL] != canonical_bytes(protocol_object(case.seal.protocol)) + b"\n":
        raise SealError(f"{paths.PROTOCOL} is not the sealed protocol")
    case.openings = read_openings(contents[paths.OPENINGS], seal=case.seal)
    return f"{len(case.openings)} opened samples lead to the sealed root; the protocol is the sealed one"


def generation(case: Verified) -> str:
    """The key set, which the caller holds, follows from seed, commitment and randomness."""
    problem = generation_problem(case.seal)
    if problem:
        raise NotCheckedError(problem)
    if case.expected.open_keyset is None:
        raise NotCheckedError("the key set was not given, and only who holds it can derive it again")
    try:
        opened = case.expected.open_keyset(case.bundle.contents[paths.SEAL])
    except UsageError as error:
        # An encrypted key set without the key to it says nothing against the evidence.
        raise NotCheckedError(str(error)) from error
    summary = rederive(opened.keys, opened.seal).summary
    if case.seal.randomness_source in (RandomnessSource.BEACON, RandomnessSource.NONCE):
        _confirm_draw(case.seal.protocol.randomness, case.expected.drawn_with, summary=summary)
    return summary


def _confirm_draw(randomness: str, own: bytes | None, *, summary: str) -> None:
    """Compare the value that the keys were drawn with to what whoever drew it says it was."""
    if own is None:
        raise NotCheckedError(f"{summary}; the value was not given for comparison")
    if own.hex() != randomness:
        raise SealError("generation: the keys were not drawn with the value that was given")
