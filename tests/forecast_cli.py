"""What tests of ``titans-ts`` share: run a command, and read the line that answers a mistake."""

from __future__ import annotations

from typer.testing import CliRunner

from titans_ts.cli import app


def run(*arguments, code=0):
    """Run the command in this process; return what it wrote to (stdout, stderr)."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout, result.stderr


def error_of(*arguments):
    """The one line that a user's mistake is answered with."""
    stdout, stderr = run(*arguments, code=1)
    assert stdout == ""
    assert stderr.startswith("titans-ts: error: ")
    assert stderr.count("\n") == 1
    return stderr
