"""Measure everything side by side, store it, and rewrite the tables: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.export_time import measure_exports
from benchmarks.latency import measure_latencies
from benchmarks.sizes import SIZES, Size
from benchmarks.ways import WAYS
from vit_deploy import cost
from vit_deploy.artifact import versions
from vit_deploy.host import read_host

HERE = Path(__file__).parent
LIBRARIES = (
    "keras",
    "tensorflow-cpu",
    "tensorflow",
    "tf2onnx",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
    "torch",
    "timm",
    "onnxscript",
)


def progress(doing: str) -> None:
    """Say it on stderr."""
    print(f"{datetime.now(UTC):%H:%M:%S} {doing}", file=sys.stderr, flush=True)


def measure(size: Size, folder: Path, ways: Sequence[str], export_rounds: int, rounds: int, seconds: float) -> Any:
    """Everything about one size, in plain JSON values."""
    host, started = read_host(), datetime.now(UTC)
    missing = {name: gaps for name in ways if (gaps := WAYS[name].missing())}
    for name, gaps in missing.items():
        progress(f"{name} is skipped: {', '.join(gaps)} not installed (extra: peers)")
    possible = [WAYS[name] for name in ways if name not in missing]
    exports = measure_exports(possible, size, folder, export_rounds, progress)
    written = {entry["way"] for entry in exports if not entry["error"]}
    timed = [way for way in possible if way.name in written]
    return {
        "schema": 1,
        "size": size.name,
        "parameters": cost.num_parameters(size.config),
        "started": f"{started:%Y-%m-%d %H:%M} UTC",
        "host": host.to_dict(),
        "versions": versions(*LIBRARIES),
        "exports": exports,
        "latency": measure_latencies(timed, size, folder, rounds, seconds, progress),
        "skipped": sorted(missing.items()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, measure, store, render."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", action="append", choices=SIZES, help="repeat for more; default tiny and base")
    parser.add_argument("--way", action="append", choices=WAYS, help="repeat for more; default all")
    parser.add_argument("--quick", action="store_true", help="a miniature, to see that everything runs")
    parser.add_argument("--export-rounds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=12, help="of latency")
    parser.add_argument("--seconds", type=float, default=1.5, help="of calls for each file in each round")
    parser.add_argument("--results", type=Path, default=HERE / "results", metavar="DIR")
    parser.add_argument("--readme", type=Path, default=HERE / "README.md", metavar="FILE")
    parser.add_argument("--tables", action="store_true", help="only render what is stored")
    options = parser.parse_args(arguments)
    if options.quick:
        options.size, options.export_rounds, options.rounds, options.seconds = ["quick"], 1, 2, 0.1
        if options.results == HERE / "results":
            parser.error("--quick measures nothing worth keeping: give it --results and --readme of its own")
    options.results.mkdir(parents=True, exist_ok=True)
    for name in [] if options.tables else (options.size or ["tiny", "base"]):
        with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
            result = measure(
                SIZES[name],
                Path(folder),
                options.way or list(WAYS),
                options.export_rounds,
                options.rounds,
                options.seconds,
            )
        text = json.dumps(result, separators=(",", ":"))
        (options.results / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    tables.rewrite(options.readme, options.results)
    progress(f"the tables are in {options.readme}")


if __name__ == "__main__":
    main()
