"""The command line: one typer app, one place where errors become exit codes.

Exit codes: 0 done, 1 failed with one clear line, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, TextIO

import typer

import brainscan
from brainscan.cli import (
    activations,
    atlas,
    audit,
    calibrate,
    demo,
    dictionary,
    models,
    organism,
    output,
    scan,
    serve,
    steer,
    stress,
    stress_judge,
    watch,
)
from brainscan.errors import BrainscanError, UsageError

TRACEBACK = "BRAINSCAN_TRACEBACK"
"""Environment variable: when set, a failure shows where it came from."""

RESUMABLE = {
    ("activations", "harvest"),
    ("dictionary", "train"),
    ("stress", "run"),
    ("organism", "build"),
}
"""Verbs that go on where they were stopped."""

app = typer.Typer(
    name="brainscan",
    help="See, test and change what a language model represents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
stress.app.command("validate-judge", epilog=stress_judge.EXAMPLE)(stress_judge.validate_judge)
for group in (models.app, activations.app, dictionary.app, atlas.app, stress.app, organism.app):
    app.add_typer(group)
app.command(epilog=demo.EXAMPLE)(demo.demo)
app.command(epilog=audit.EXAMPLE)(audit.audit)
app.command(epilog=calibrate.EXAMPLE)(calibrate.calibrate)
app.command(epilog=scan.EXAMPLE)(scan.scan)
app.command(epilog=steer.EXAMPLE)(steer.steer)
app.command(epilog=watch.EXAMPLE)(watch.watch)
app.command(epilog=serve.EXAMPLE)(serve.serve)


def _print_version(asked: bool) -> bool:
    if asked:
        print(f"brainscan {brainscan.__version__}")
        raise typer.Exit()
    return asked


@app.callback()
def _brainscan(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """See, test and change what a language model represents."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        arguments: what follows the program's name; None: the process' own.
    """
    _quieten_libraries()
    with warnings.catch_warnings():
        _show_only_our_warnings()
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    try:
        result = app(arguments, prog_name="brainscan", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        return _fail(_with_help(error), error.exit_code, error)
    except BrainscanError as error:
        return _fail(str(error), 2 if isinstance(error, UsageError) else 1, error)
    except (KeyboardInterrupt, typer.Abort):
        result = 130
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):
            return _reader_gone()
        raise
    except OSError as error:
        full = error.errno == errno.ENOSPC
        return _fail("the disk is full: free some space" if full else _surprise(error), 1, error)
    except Exception as error:
        return _fail(_surprise(error), 1, error)
    if result == 130:
        return _fail(_interrupted(arguments), 130, None)
    return result if isinstance(result, int) else 0


def _interrupted(arguments: list[str]) -> str:
    """What Ctrl-C leaves: only long stages have checkpoints, and nothing is ever half written."""
    whole = arguments[:1] in (["audit"], ["calibrate"]) or (
        arguments[:1] == ["demo"] and "--concept" not in arguments
    )
    if whole or tuple(arguments[:2]) in RESUMABLE:
        return "interrupted; run the same command again to go on"
    return "interrupted; nothing is left half written, and the same command starts again"


def _with_help(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "brainscan"
    return f"{error.format_message().rstrip('.')}; see: {where} --help"


def _surprise(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}; set {TRACEBACK}=1 to see where"


def _fail(message: str, code: int, error: Exception | None) -> int:
    if error is not None and os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    line = " ".join(message.split())
    output.note(f"brainscan: {line}")
    return code


def _reader_gone() -> int:
    """The reader of our output has closed it (`| head`): nothing is wrong, and nothing is left."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python flushes it on exit)
    return 0


def _quieten_libraries() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _show_only_our_warnings() -> None:
    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        output.note(f"brainscan: warning: {message}")

    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module=r"brainscan\b")
    warnings.showwarning = show
