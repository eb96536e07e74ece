"""``auditor train``: mark a model, measure the mark, seal the claim; one command per scheme."""

import typer

from auditor.cli.train_margin import trigger_command
from auditor.cli.train_none import none
from auditor.cli.train_pattern import pattern_command

train = typer.Typer(
    help="Train a marked model, measure it against its unmarked twin, and seal keys and protocol.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
for _name in ("new-label", "wrong-label"):
    train.command(_name)(pattern_command(_name))
for _name in ("margin", "plain-trigger"):
    train.command(_name)(trigger_command(_name))
train.command("none")(none)
