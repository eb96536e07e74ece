"""``auditor seal``: seal key samples that another tool made."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from auditor.evidence.imported import Foreign


def seal(
    keys: Annotated[Path, typer.Argument(help="Trigger samples, .npz with x (uint8), natural and expected.")],
    owner_key: Annotated[Path, typer.Option(help="Ed25519 key that signs the seal, PEM.")],
    model: Annotated[Path, typer.Option(help="File of the protected model; its SHA-256 is sealed.")],
    out: Annotated[Path, typer.Option("--out", help="New or empty folder for k.npz and k.seal.json.")],
    shams: Annotated[
        Path | None, typer.Option(help="Samples made alike from other secrets, same format; they give the null rate.")
    ] = None,
    controls: Annotated[Path | None, typer.Option(help="Ordinary samples, same format.")] = None,
    classes: Annotated[
        int | None, typer.Option(min=2, help="Natural classes.", show_default="largest label + 1")
    ] = None,
    recipient: Annotated[
        list[str] | None,
        typer.Option(help="age recipient (age1…) that k.npz is encrypted to; repeatable, or AUDITOR_PASSPHRASE."),
    ] = None,
) -> None:
    """Seal key samples that another tool made; a claim that rests on them is at most contestable.

    Nobody can re-derive such keys, so that seal, results and report say "generation not verifiable".
    """
    import os

    from auditor import __version__, casefile
    from auditor.canonical import sha256_hex
    from auditor.cli import console
    from auditor.cli.signing_keys import read_key
    from auditor.errors import UsageError
    from auditor.evidence.imported import import_keys
    from auditor.evidence.keyset import pack, write_sealed
    from auditor.evidence.seal import Seal, seed_commitment, sign_seal
    from auditor.evidence.times import utc_text

    locks = casefile.locks(recipient or ())
    key = read_key(owner_key)
    found = read_samples(keys)
    others = [None if path is None else read_samples(path) for path in (shams, controls)]
    n_classes = classes or max(max(group.natural) for group in (found, *others) if group is not None) + 1
    keyset, protocol = import_keys(
        keys=found,
        shams=others[0],
        controls=others[1],
        classes=[str(number) for number in range(n_classes)],
        seed=os.urandom(32),
    )
    if not model.is_file():
        raise UsageError(f"{model.name}: no such file")
    casefile.refuse_used_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    envelope = sign_seal(
        Seal(
            keyset_id=keyset.keyset_id,
            payload_sha256=sha256_hex(pack(keyset)),
            merkle_root=keyset.root().hex(),
            n_samples=len(keyset.samples),
            spec=keyset.spec,
            protocol=protocol,
            generator=keyset.generator,
            model_sha256=sha256_hex(model.read_bytes()),
            seed_commitment=seed_commitment(keyset.secret_seed),
            owner_public_key=key.public.hex(),
            serial=1,
            previous_seal_sha256="",
            sealed_at=utc_text(casefile.utc_now()),
            tool_version=__version__,
        ),
        key,
    )
    write_sealed(out / "k.npz", keys=keyset, seal_envelope=envelope, locks=locks)
    (out / "k.seal.json").write_bytes(envelope)
    (out / "owner.pub.pem").write_bytes(key.public_pem())
    if shams is None or controls is None:
        console.warn("without shams and controls every audit of this key set ends inconclusive")
    console.say(f"sealed, generation not verifiable: {out / 'k.npz'}")


def read_samples(path: Path) -> "Foreign":
    """Read samples of another tool.

    Raises:
        UsageError: the file cannot be read.
        MalformedError: it holds something else.
    """
    from auditor.errors import UsageError
    from auditor.evidence.imported import read_foreign
    from auditor.evidence.safe_npz import MAX_FILE_BYTES

    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_FILE_BYTES else b""
    except OSError as error:
        raise UsageError(f"{path.name}: cannot be read ({type(error).__name__})") from error
    return read_foreign(data, what=path.name)
