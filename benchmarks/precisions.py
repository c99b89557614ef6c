"""How large, how fast and how near to fp32 is each precision, side by side: `python -m benchmarks.precisions`."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import precision_tables
from benchmarks.__main__ import HERE, LIBRARIES, progress
from benchmarks.latency import measure_latencies
from benchmarks.making import make_all, name_of
from benchmarks.sizes import SIZES, Size
from benchmarks.ways import Way
from vit_deploy import cost
from vit_deploy.artifact import versions
from vit_deploy.host import read_host

RESULTS = HERE / "results" / "precisions"
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}


@dataclass(frozen=True)
class Bundle(Way):
    """A bundle that is there already."""

    def target(self, folder: Path) -> Path:
        """The bundle."""
        return folder / self.name


def measure(size: Size, folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Everything about one size, in plain JSON values."""
    host, started = read_host(), datetime.now(UTC)
    progress(f"{size.name}: making all precisions")
    made = make_all(size.arguments, folder)
    bundles = [
        Bundle(name_of(each), name_of(each), RUNTIMES[each["format"]], ours=True) for each in made if each["path"]
    ]
    latency = measure_latencies(bundles, size, folder, rounds, seconds, progress)
    return {
        "schema": 1,
        "size": size.name,
        "parameters": cost.num_parameters(size.config),
        "started": f"{started:%Y-%m-%d %H:%M} UTC",
        "host": host.to_dict(),
        "versions": versions(*LIBRARIES, "ai-edge-quantizer"),
        "made": [{**each, "path": None} for each in made],
        "latency": latency,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, measure, store, render."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precisions", description=__doc__)
    parser.add_argument("--size", action="append", choices=SIZES, help="repeat for more; default tiny and base")
    parser.add_argument("--rounds", type=int, default=12, help="of latency")
    parser.add_argument("--seconds", type=float, default=1.0, help="of calls for each file in each round")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--readme", type=Path, default=HERE / "README.md", metavar="FILE")
    options = parser.parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    for name in options.size or ["tiny", "base"]:
        with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
            result = measure(SIZES[name], Path(folder), options.rounds, options.seconds)
        text = json.dumps(result, separators=(",", ":"))
        (options.results / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    precision_tables.rewrite(options.readme, options.results, options.results.with_name("accuracy"))
    progress(f"the tables are in {options.readme}")


if __name__ == "__main__":
    main()
