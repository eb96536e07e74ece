import logging

import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

from auditor import __version__
from auditor.cli.app import AuditorGroup, app
from auditor.errors import AuditorError, EvidenceError, InterruptedAuditError, TrainingError, UsageError

COMMANDS = ("demo", "train", "serve", "attack", "verify", "check", "stamp", "plan", "report")


def test_version():
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"auditor {__version__}\n")


def test_help_names_every_command_and_the_exit_codes():
    done = CliRunner().invoke(app, ["--help"])
    assert done.exit_code == 0
    for word in (*COMMANDS, "not supported", "interrupted"):
        assert word in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.stdout


@pytest.mark.parametrize("error", [UsageError, EvidenceError, TrainingError, InterruptedAuditError])
def test_errors_become_one_line_and_their_code(error):
    small = typer.Typer(cls=AuditorGroup, pretty_exceptions_show_locals=False)

    @small.callback()
    def options() -> None:
        """Group."""

    @small.command()
    def fail() -> None:
        raise error("what went wrong")

    done = CliRunner().invoke(small, ["fail"])
    assert done.exit_code == error.exit_code
    assert done.stderr == "auditor: what went wrong\n"
    assert done.stdout == ""


def test_unknown_commands_and_options_are_usage():
    assert CliRunner().invoke(app, ["nonsense"]).exit_code == 2
    assert CliRunner().invoke(app, ["verify", "--nonsense"]).exit_code == 2
    assert CliRunner().invoke(app, ["verify"]).exit_code == 2


def test_logging_goes_to_our_logger_only():
    root_handlers = list(logging.getLogger().handlers)
    CliRunner().invoke(app, ["-vv", "plan", "--help"])
    assert logging.getLogger().handlers == root_handlers
    assert logging.getLogger("auditor").level == logging.DEBUG


def test_every_error_has_a_documented_code():
    def below(error: type[AuditorError]) -> list[type[AuditorError]]:
        return [found for child in error.__subclasses__() for found in (child, *below(child))]

    assert {error.exit_code for error in below(AuditorError)} == {2, 5, 6, 7, 8, 130}


def help_texts(command, path=()):
    """Yield every command's and parameter's help text with the words that name it."""
    yield path, command.help or ""
    for parameter in command.params:
        yield (*path, parameter.name), getattr(parameter, "help", None) or ""
    for name, inner in getattr(command, "commands", {}).items():
        yield from help_texts(inner, (*path, name))


def test_no_part_of_a_help_text_is_taken_for_markup_and_left_out():
    for path, text in help_texts(typer.main.get_command(app)):
        assert Text.from_markup(text).plain == text, path
    done = CliRunner().invoke(app, ["verify", "--help"], env={"COLUMNS": "160"})
    assert "[default: (audit-<UTC time>)]" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("probe", "--endpoint", "http://127.0.0.1:9"),
        ("verify", "--endpoint", "http://127.0.0.1:9", "--keyset", "k.npz"),
        ("blind", "run", "x", "--relay", "http://127.0.0.1:9", "--keyset", "k.npz"),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("seconds", ["inf", "1e10", "nan", "0"])
def test_waits_that_no_clock_can_keep_are_usage(command, seconds):
    done = CliRunner().invoke(app, [*command, "--timeout", seconds])
    assert done.exit_code == 2
    assert "--timeout" in done.stderr
