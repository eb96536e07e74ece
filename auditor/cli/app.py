"""The application: commands, error translation and logging set-up."""

import logging
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from auditor import __version__
from auditor.cli.attack import attack
from auditor.cli.blind import blind
from auditor.cli.check import check
from auditor.cli.cosign import cosign
from auditor.cli.custody import custody
from auditor.cli.demo import demo
from auditor.cli.dry_run import dry_run
from auditor.cli.guard import guard
from auditor.cli.keys import keys
from auditor.cli.pack import pack
from auditor.cli.panel import panel
from auditor.cli.plan import plan
from auditor.cli.probe import probe
from auditor.cli.profiles import profiles
from auditor.cli.report import report
from auditor.cli.rivals import rivals
from auditor.cli.screen import screen
from auditor.cli.seal import seal
from auditor.cli.serve import serve
from auditor.cli.stamp import stamp
from auditor.cli.train import train
from auditor.cli.verify import verify
from auditor.errors import AuditorError, missing_part


class AuditorGroup(TyperGroup):
    """Turns the package's errors into one line on stderr and the documented exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an :class:`AuditorError` or a part that is not installed ends it with its exit code."""
        try:
            return super().invoke(ctx)
        except AuditorError as error:
            typer.echo(f"auditor: {error}", err=True)
            raise typer.Exit(error.exit_code) from error
        except ModuleNotFoundError as error:
            missing = missing_part(error)
            if missing is None:
                raise
            typer.echo(f"auditor: {missing}", err=True)
            raise typer.Exit(missing.exit_code) from error


app = typer.Typer(
    name="auditor",
    cls=AuditorGroup,
    no_args_is_help=True,
    add_completion=False,
    # Locals may hold keys and seeds; they stay out of every traceback.
    pretty_exceptions_show_locals=False,
    help="Black-box ownership audits of machine-learning classifiers, with evidence a stranger can re-check.",
    epilog="Exit codes: 0 supported / intact / done, 3 not supported, 4 inconclusive, 2 usage, 5 evidence broken, "
    "6 suspect unusable, 7 missing part, 8 training missed its target, 130 interrupted.",
)


@app.callback(invoke_without_command=True)
def _options(
    ctx: typer.Context,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Log more on stderr (-v info, -vv debug).")
    ] = 0,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"auditor {__version__}")
        raise typer.Exit
    logger = logging.getLogger("auditor")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger.handlers = [handler]
    logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG))


_COMMANDS = (
    demo, seal, guard, serve, attack, probe, profiles, verify, check, pack, stamp, cosign, panel, screen, plan, dry_run,
    report, rivals,
)  # fmt: skip
for _command in _COMMANDS:
    app.command(_command.__name__.replace("_", "-"))(_command)
app.add_typer(train, name="train")
app.add_typer(keys, name="keys")
app.add_typer(custody, name="custody")
app.add_typer(blind, name="blind")
