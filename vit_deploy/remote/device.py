"""What `run.py` does on a device that has Python, NumPy and an engine, and nothing else.

It takes those options of `verify`, `bench`, `predict` and `evaluate` that make sense there, and prints their documents.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from vit_deploy.core import documents
from vit_deploy.core.stderr import detach_streams, stdout_to_stderr
from vit_deploy.errors import VitDeployError
from vit_deploy.remote.arguments import add_options
from vit_deploy.remote.unpacked import HOME, as_it_was_called, commands
from vit_deploy.remote.work import COMMANDS

OLDEST = (3, 10)  # Python, older than what exports; any NumPy that there is for it will do

# What a detached run leaves in its folder: that it began, its exit code at the end, its result, what it said.
STARTED, CODE, RESULT, LOG = "started", "code", "result.json", "log"
PID = f"{STARTED}/pid"


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code of the command line's contract.

    `detached FOLDER …` runs the rest in a process of its own that outlives the caller, and leaves its results there.
    """
    if arguments[:1] == ["detached"]:
        return _detach(Path(arguments[1]).resolve(), arguments[2:])
    options = _parser(commands()).parse_args(arguments)
    # The processes that time a case import vit_deploy from here as well.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HOME), os.environ.get("PYTHONPATH"))))
    try:
        with stdout_to_stderr():
            records, ok = COMMANDS[options.command].run(options)
        document, code = documents.document(options.command, records, ok=ok), 0 if ok else 1
    except VitDeployError as error:
        error.message = as_it_was_called(error.message)
        document, code = documents.failure(options.command, error), 2
        print(f"vit-deploy: {error}", file=sys.stderr)
    text = json.dumps(document, allow_nan=False)
    if options.output is not None:
        _write_whole(options.output, text)
    elif options.json:
        print(text)
    else:
        _print_plainly(document["results"])
    return code


def _detach(folder: Path, arguments: Sequence[str]) -> int:
    try:
        (folder / STARTED).mkdir()
    except FileExistsError:  # it was started before
        return 0
    ready, done = os.pipe()
    if os.fork():
        os.close(done)
        os.read(ready, 1)  # until the other one can be found and ended
        return 0
    os.setsid()
    signal.signal(signal.SIGTERM, _terminate)  # so that the processes it started are ended with it
    _write_whole(folder / PID, str(os.getpid()))
    detach_streams(folder / LOG)
    os.close(ready)
    os.close(done)
    code = 70  # of a crash, whose traceback is in the log
    try:
        code = main([*arguments, "--output", str(folder / RESULT)])
    finally:
        _write_whole(folder / CODE, str(code))
    return code


def _terminate(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _parser(names: Iterable[str] = COMMANDS) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py", description="Prove and time the models that were packed with it.")
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name in names:
        offered = COMMANDS[name]
        command = subparsers.add_parser(name, help=offered.help, description=offered.help)
        offered.arguments(command)
        add_options(command, offered.options)
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.add_argument("--output", type=Path, help="write the document to this file instead")
    return parser


def _print_plainly(records: Sequence[documents.Record]) -> None:
    for record in records:
        print(f"{record['artifact']}: {_in_words(record)}")
        for row in record.get("profile") or ():
            print(f"  {row['operator']}: {row['ms']:.3f} ms ({row['share']:.0%}) in {row['calls']:g} calls")
        for note in (*record.get("notes", ()), *record["failures"]):
            print(f"  {note}")


def _in_words(record: documents.Record) -> str:
    if "top" in record:
        seen = (f"{one['label'] or one['class']} ({one['probability']:.1%})" for one in record["top"])
        return f"{record['image']}: {', '.join(seen) or 'not read'}"
    engine = f"{record['runtime']} ({record['provider']})"
    if "samples_ns" in record:
        said = f"p50 {record['p50_ms']:.2f} ms, p90 {record['p90_ms']:.2f} ms, batch {record['batch']}"
        return f"{engine}: {said}, {record['throughput_per_s']:.1f} images/s"
    if "top1" in record:
        return f"{engine}: top-1 {record['top1']:.2%}, top-5 {record['top5']:.2%} of {record['images']} images"
    from vit_deploy.verification.records import judged

    return f"{engine}: {record['verdict']}, {judged(record)}"
