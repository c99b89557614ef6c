"""The entry point of `vit-deploy`: arguments, signals and exit code."""

from __future__ import annotations

import errno
import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from vit_deploy.core.child_processes import set_for_libraries
from vit_deploy.core.stderr import silence

INTERRUPTED = 130
NO_OUTPUT = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # what stdout and stderr fail with
SAID_NO = 1  # the exit code of a check that does
BAD_INPUT = 2  # the exit code, also of engines that fail


class Terminated(SystemExit):
    """SIGTERM, as an exception, so that what is half-written is cleaned up on the way out."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done and good, 1 a check said no, 2 bad input or a missing engine."""
    # Until a command begins there is no garbage, nor is any of it wanted back at the end; looking for it would take a
    # tenth of what `--help` takes.
    gc.disable()
    args = list(sys.argv[1:] if arguments is None else arguments)
    for name, flags in (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:  # the caller closed it
            nowhere = os.open(os.devnull, flags)
            setattr(sys, name, os.fdopen(nowhere, "w" if flags else "r", encoding="utf-8"))
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):  # what its encoding has no character for is escaped, as on stderr
        sys.stdout.reconfigure(errors="backslashreplace")
    code = run(args)
    gc.freeze()
    sys.exit(code)


def run(args: list[str]) -> int:
    """Run one command and give its exit code; in `--json` mode nothing but the document goes to stdout."""
    try:
        from vit_deploy.cli.output import protected_stdout

        with protected_stdout("--json" in args):
            code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has gone
        silence(sys.stdout)
        return INTERRUPTED
    except KeyboardInterrupt:  # while modules were imported
        return _interrupted()
    except OSError as error:
        if error.errno not in NO_OUTPUT or error.filename is not None:
            raise
        return _bad_output(error)
    return code


def _interrupted() -> int:
    print("interrupted; nothing half-written was left behind", file=sys.stderr)
    return INTERRUPTED


def _bad_output(error: OSError) -> int:
    silence(sys.stdout)
    try:
        print(f"vit-deploy: cannot write the output: {error.strerror}", file=sys.stderr)
        print("  fix: free some space, or send the output elsewhere", file=sys.stderr, flush=True)
    except OSError:  # it was stderr itself
        silence(sys.stderr)
    return BAD_INPUT


def _run(args: list[str]) -> int:
    import typer

    from vit_deploy.cli.app import app, command_names
    from vit_deploy.cli.output import print_error
    from vit_deploy.errors import LicenceError, UsageError, VitDeployError

    _hush_engines(verbose=bool({"-v", "--verbose"} & set(args)))
    args = with_addresses(args)
    command = next((arg for arg in args if arg in command_names()), "vit-deploy")
    # typer carries click inside itself since 0.26 or so; its public error class leads to the common base.
    usage_error: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
    usage = "vit-deploy --help" if command == "vit-deploy" else f"vit-deploy {command} --help"
    try:
        _refuse_empty(args)
        code = int(app(args, standalone_mode=False, prog_name="vit-deploy") or 0)
    except usage_error as error:
        # Without any argument there is nothing to say but the help, which is printed already.
        said = VitDeployError(error.format_message() or "which command?", fix=f"see {usage}")
        print_error(command, said, kind="UsageError", as_json="--json" in args)
        return BAD_INPUT
    except VitDeployError as error:
        if isinstance(error, UsageError) and not error.fix:
            error.fix = f"see {usage}"
        print_error(command, error, kind=type(error).__name__, as_json="--json" in args)
        return SAID_NO if isinstance(error, LicenceError) else BAD_INPUT
    except FileNotFoundError as error:
        if error.filename is not None:
            raise
        gone = VitDeployError("the working directory is gone", fix="change to one that is there")
        print_error(command, gone, kind=type(gone).__name__, as_json="--json" in args)
        return BAD_INPUT
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # click turns it into exit 1, which would be a check's no
            raise stop.__context__ from None
        raise
    except typer.Exit as stop:
        return int(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    return _interrupted() if code == INTERRUPTED else code  # newer typers return it themselves


def _refuse_empty(args: Sequence[str]) -> None:
    """Refuse an empty word: as a path it would be the folder here, or what is made where none is given."""
    for place, arg in enumerate(args, 1):
        if arg == "" or (arg.startswith("--") and arg.endswith("=") and arg.count("=") == 1):
            from vit_deploy.errors import UsageError

            said = f"{arg} is followed by nothing" if arg else f"word {place} of the command is empty"
            raise UsageError(f"{said}, as where a variable is not set", fix="set it, or leave the word out")


def with_addresses(args: Sequence[str]) -> list[str]:
    """The arguments with the address "local" behind each `--ray` that has none.

    An address is `auto`, `local`, or has a colon and is no file.
    """
    found = []
    for place, arg in enumerate(args):
        following = args[place + 1] if place + 1 < len(args) else ""
        is_address = following in ("auto", "local") or (":" in following and not os.path.exists(following))  # noqa: PTH110
        found.append("--ray=local" if arg == "--ray" and (following.startswith("-") or not is_address) else arg)
    return found


def _hush_engines(*, verbose: bool) -> None:
    # Read by the engines when they are imported. The command line always traces with TensorFlow; what it times in
    # processes of their own runs on the user's backend.
    set_for_libraries("KERAS_BACKEND", "tensorflow")
    if verbose:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    import logging
    import warnings

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(128 + number)
