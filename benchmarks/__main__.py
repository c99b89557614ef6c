"""Measure everything that the READMEs claim, store it, and rewrite their tables: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import pages
from benchmarks.job import Job
from benchmarks.parts import PARTS, Part
from benchmarks.processes import ROOT, environment
from benchmarks.progress import progress
from benchmarks.records import RESULTS
from benchmarks.sizes import SIZES
from vit_deploy.core.child_processes import python


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, measure, render; gives 1 where a part failed."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
        # A miniature is worth neither keeping nor publishing.
        results = options.results or (Path(folder) / "results" if options.quick else RESULTS)
        job = Job(
            results.absolute(),
            (options.trained or Path(folder) / "trained").absolute(),
            options.data and options.data.absolute(),
            tuple(options.size or ()),
            options.quick,
            options.latency_only,
        )
        said = {} if options.tables else {part.name: run(part, job) for part in options.only or PARTS.values()}
        if job.results == RESULTS:
            pages.rewrite(RESULTS)
            progress(f"the tables are in {', '.join(str(page) for page in pages.PAGES)}")
        else:
            print(pages.everything(job.results))
    for name, outcome in said.items():
        progress(f"{name}: {outcome}")
    return int(any(outcome.startswith("failed") for outcome in said.values()))


def run(part: Part, job: Job) -> str:
    """Measure one part in a process of its own; says how that went."""
    if gaps := part.missing():
        outcome = f"skipped, {', '.join(gaps)} not installed (extra: {part.extra}); what is stored stays"
        progress(f"{part.name}: {outcome}")
        return outcome
    progress(f"{part.name}: {part.asks}?")
    started = time.monotonic()
    command = python("-m", "benchmarks.run_part", part.name, job.to_json())
    code = subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode
    minutes = f"{(time.monotonic() - started) / 60:.1f} minutes"
    if code:
        return f"failed after {minutes} (exit {code}); what it had stored by then is kept"
    return f"done in {minutes}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", type=_parts, metavar="PART,…", help=f"of {', '.join(PARTS)}; default all")
    add("--size", action="append", choices=SIZES, help="repeat for more; default what each part takes")
    add("--quick", action="store_true", help="a miniature, to see that everything runs; prints tables, keeps nothing")
    add("--latency-only", action="store_true", help="of foundation: time the files that a run left in --trained")
    add("--tables", action="store_true", help="render what is stored, measure nothing")
    add("--data", type=Path, metavar="FOLDER|FILE.zip", help="photographs to train on too, a folder a class")
    add("--trained", type=Path, metavar="DIR", help="of trained models, or where they are to stay")
    add("--results", type=Path, metavar="DIR", help="keep results there, and print the tables")
    return parser


def _parts(text: str) -> list[Part]:
    unknown = [name for name in text.split(",") if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return [PARTS[name] for name in PARTS if name in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
