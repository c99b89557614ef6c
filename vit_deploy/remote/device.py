"""What `run.py` does on a device that has Python, NumPy and an engine, and nothing else.

It takes the options of `vit-deploy verify` and `vit-deploy bench` that make sense there, and prints the same documents.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vit_deploy.core import documents
from vit_deploy.core.artifact import read_artifact
from vit_deploy.core.stderr import detach_streams, stdout_to_stderr
from vit_deploy.errors import ConfigError, MissingEngineError, VitDeployError
from vit_deploy.performance.plan import milliseconds_in
from vit_deploy.runtimes import RUNTIMES, installed_takers
from vit_deploy.verification.records import verification
from vit_deploy.verification.user_limits import Limits

HOME = Path(__file__).resolve().parents[2]  # where the archive was unpacked
PLACE = "artifacts"
LISTING = f"{PLACE}/listing.json"
OLDEST = (3, 11)  # Python; any NumPy that there is for it will do

# What a detached run leaves in its folder: that it began, its exit code at the end, its result, what it said.
STARTED, CODE, RESULT, LOG = "started", "code", "result.json", "log"
PID = f"{STARTED}/pid"


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code of the command line's contract.

    `detached FOLDER …` runs the rest in a process of its own that outlives the caller, and leaves its results there.
    """
    if arguments[:1] == ["detached"]:
        return _detach(Path(arguments[1]).resolve(), arguments[2:])
    options = _parser().parse_args(arguments)
    # The processes that time a case import vit_deploy from here as well.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HOME), os.environ.get("PYTHONPATH"))))
    work = _verify if options.command == "verify" else _bench
    try:
        with stdout_to_stderr():
            records, ok = work(options)
        document, code = documents.document(options.command, records, ok=ok), 0 if ok else 1
    except VitDeployError as error:
        error.message = _as_it_was_called(error.message)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py", description="Prove and time the models that were packed with it.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("verify", "compare with the recorded answers"), ("bench", "time side by side")):
        command = commands.add_parser(name, help=text, description=text)
        every: dict[str, Any] = {"action": "extend", "type": _names} if name == "bench" else {}
        usual = "all that are installed" if name == "bench" else "the format's first that is installed"
        command.add_argument("--runtime", help=f"engine; {usual} unless given", **every)
        command.add_argument("--provider", help="what executes the graph", **every)
        command.add_argument("--device", type=_index, default=0, help="which GPU, of those that are visible")
        command.add_argument("--cuda-graph", action="store_true", help="record a GPU's kernels and replay them")
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.add_argument("--output", type=Path, help="write the document to this file instead")
        if name == "verify":
            command.add_argument("--quick", action="store_true", help="the recorded images alone")
            command.add_argument("--threads", type=_counts, default=[], help="run with these numbers too, as 1 or 1,2")
            command.add_argument("--limits", type=_limits, default=Limits(), help=argparse.SUPPRESS)
        if name == "bench":
            command.add_argument("--batch", type=_counts, default=[1], help="images a call, as 1 or 1,4")
            command.add_argument("--threads", type=_counts, default=[None], help="as 1 or 1,2")
            command.add_argument("--streams", type=int, default=1, help="calls at the same time")
            command.add_argument("--seconds", type=float, default=3.0, help="of calls for each case")
            command.add_argument("--runs", type=int, help="calls for each case, instead")
            command.add_argument("--under", type=_time, help="find the largest batch that takes no longer, as 5ms")
            command.add_argument("--one-at-a-time", action="store_true", help="load, measure and free each in turn")
            command.add_argument("--timeout", type=float, default=600.0, help="seconds for each step of a case")
            command.add_argument("--profile", action="store_true", help="time each operator too, in a run of its own")
    return parser


def _names(text: str) -> list[str]:
    return [text] if Path(text).exists() else text.split(",")


def _counts(text: str) -> list[int]:
    if not all(each.isascii() and each.isdigit() and len(each) < 6 for each in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}; expected numbers as 1 or 1,4")
    return [int(each) for each in text.split(",")]


def _index(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number from 0 on")
    return int(text)


def _time(text: str) -> float:
    try:
        return milliseconds_in(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _limits(text: str) -> Limits:
    return Limits(**json.loads(text))


def listing() -> list[tuple[Path, str]]:
    """Where each packed bundle is, and where it was."""
    entries = json.loads((HOME / LISTING).read_text(encoding="utf-8"))
    return [(HOME / each["place"], str(each["path"])) for each in entries]


def _as_it_was_called(text: str) -> str:
    """A message with the paths that the bundles had where they were packed."""
    for folder, path in listing():
        text = text.replace(str(folder), path)
    return text


def _verify(options: argparse.Namespace) -> tuple[list[dict[str, Any]], bool]:
    from vit_deploy.verification import checks
    from vit_deploy.verification.parity import verify

    packed = [(read_artifact(folder), path) for folder, path in listing()]
    _require(options.runtime or installed_takers(artifact.format, options.provider)[0] for artifact, _ in packed)
    questions = () if options.quick else checks.ALWAYS
    if options.threads:
        questions = (*questions, checks.threads(options.threads))
    names = ("runtime", "provider", "limits", "device", "cuda_graph")
    asked: dict[str, Any] = {name: getattr(options, name) for name in names}
    found = [(verify(artifact, questions=questions, **asked), path) for artifact, path in packed]
    records = [{**verification(result), "artifact": path} for result, path in found]
    return records, all(result.ok for result, _ in found)


def _bench(options: argparse.Namespace) -> tuple[list[dict[str, Any]], bool]:
    from vit_deploy.performance.bench import bench, cases_of
    from vit_deploy.performance.latency import Plan
    from vit_deploy.performance.latency_json import to_json
    from vit_deploy.performance.profilers import profile_or_reason
    from vit_deploy.performance.sweep import largest_under_each

    if options.streams < 1:
        raise ConfigError(f"streams is {options.streams}; expected a positive number")
    names = dict(listing())
    cases = cases_of(
        [(folder, read_artifact(folder).format) for folder in names],
        options.runtime,
        options.provider or [None],
        options.batch,
        options.threads,
        streams=options.streams,
        device=options.device,
        cuda_graph=options.cuda_graph,
    )
    _require(case.runtime for case in cases)
    plan = Plan(
        seconds=None if options.runs else options.seconds,
        runs=options.runs,
        timeout_s=options.timeout,
        one_at_a_time=options.one_at_a_time,
    )
    results = bench(cases, plan) if options.under is None else largest_under_each(cases, options.under, plan)
    records = [{**to_json(each, results[0]), "artifact": names[each.case.artifact]} for each in results]
    if options.profile:
        records = [profile_or_reason(each.case).added_to(record) for each, record in zip(results, records, strict=True)]
    return records, True


def _require(runtimes: Iterable[str]) -> None:
    """Refuse work for engines that are not installed for this Python; all of them are named."""
    missing = sorted({name for runtime in runtimes for name in RUNTIMES[runtime].missing()})
    if missing:
        packages = " ".join(name.split(" or ")[-1].replace("_", "-") for name in missing)  # of several any will do
        raise MissingEngineError(
            f"{sys.executable} has no {', '.join(missing)}", fix=f"{sys.executable} -m pip install {packages}"
        )


def _print_plainly(records: Sequence[documents.Record]) -> None:
    for record in records:
        engine = f"{record['runtime']} ({record['provider']})"
        if "samples_ns" in record:
            said = f"p50 {record['p50_ms']:.2f} ms, p90 {record['p90_ms']:.2f} ms, batch {record['batch']}"
            said += f", {record['throughput_per_s']:.1f} images/s"
        else:
            said = f"{record['verdict']}, largest difference {record['metrics']['max_abs']}"
        print(f"{record['artifact']}: {engine}: {said}")
        for each in record.get("profile") or ():
            print(f"  {each['operator']}: {each['ms']:.3f} ms ({each['share']:.0%}) in {each['calls']:g} calls")
        for note in (*record.get("notes", ()), *record["failures"]):
            print(f"  {note}")
