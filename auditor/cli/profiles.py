"""``auditor profiles``: the built-in endpoint profiles, to read and to copy."""

from typing import Annotated

import typer


def profiles(
    name: Annotated[str | None, typer.Argument(help="Profile to print as TOML.", show_default="list all")] = None,
) -> None:
    """List the built-in endpoint profiles, or print one as the TOML file to copy and change."""
    from auditor.cli import console
    from auditor.suspects.http import profile

    if name is not None:
        typer.echo(profile.source(name).decode("utf-8"), nl=False)
        return
    for known in profile.names():
        loaded = profile.load(known)
        console.say(f"{known:20} {loaded.title}")
        console.say(f"{'':20} --endpoint {loaded.endpoint}")
