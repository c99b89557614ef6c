"""How large, how fast and how right is each file in a browser, beside its native engine?"""

from __future__ import annotations

import contextlib
import gzip
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.job import Job
from benchmarks.latency import TIMEOUT_S, in_rounds
from benchmarks.making import make_all, name_of
from benchmarks.precisions import RUNTIMES
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.sizes import Size
from benchmarks.web_large import is_large, measure_large
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import EngineError
from vit_deploy.performance.process import CaseProcess
from vit_deploy.verification.verifying import verify

WEB = "web"
FULL, MINIATURE = (5, 0.6), (2, 0.1)  # rounds, and seconds of calls a case in each


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """A result a size; of one whose weights lie beside its file, that file alone."""
    rounds, seconds = MINIATURE if job.quick else FULL
    for size in job.chosen("pico", "tiny"):
        with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
            if is_large(size):
                yield size.name, measure_large(size, Path(folder), WEB)
            else:
                yield size.name, _measure_size(size, Path(folder), rounds, seconds)


def _measure_size(size: Size, folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    facts = run_facts()
    progress(f"{size.name}: making all precisions")
    made = make_all(size.arguments, folder)
    names = {name_of(each): each["format"] for each in made if each["path"]}
    files = [_proven(size, name, folder / name) for name in names]
    engines = {file["engine"]["browser"]: None for file in files if "engine" in file}
    packages = {package["name"]: package for file in files for package in file.pop("engine", {}).get("packages", ())}
    runs = [name for name in names if not next(file for file in files if file["file"] == name)["error"]]
    cases = [(name, runtime) for name in runs for runtime in (RUNTIMES[names[name]], WEB)]
    return {
        **facts,
        "size": size.name,
        "browser": next(iter(engines), ""),
        "packages": list(packages.values()),
        "files": files,
        "calls": _calls(size, folder, cases, rounds, seconds),
    }


def _proven(size: Size, name: str, path: Path) -> dict[str, Any]:
    """What a file takes to fetch, and its verdict in a browser, or why it does not run there."""
    progress(f"{size.name}: {name} in a browser")
    artifact = read_artifact(path)
    packed = len(gzip.compress(artifact.model_path.read_bytes(), 6))
    entry: dict[str, Any] = {"file": name, "bytes": artifact.model_bytes, "gzip_bytes": packed, "error": None}
    try:
        found = verify(artifact, runtime=WEB)
    except EngineError as error:
        return {**entry, "verdict": "refused", "error": error.message.replace(f"{artifact.model_path} ", "")}
    return {**entry, "verdict": found.verdict, "engine": dict(found.engine)}


def _calls(
    size: Size, folder: Path, cases: Sequence[tuple[str, str]], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """One image a call on one thread, every case in a process of its own, taking turns in rounds."""
    entries: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        workers = []
        for name, runtime in cases:
            progress(f"{size.name}: loading {name} in {runtime}")
            worker = stack.enter_context(CaseProcess(f"{name} in {runtime}", TIMEOUT_S))
            common = {"runtime": runtime, "provider": None, "threads": 1, "batch": 1}
            facts = worker.ask({**common, "artifact": str(folder / name)})
            worker.ask({"warmup": None})  # a browser's compiler takes its time with what is called often
            entry = {"file": name, "runtime": runtime, "load_ms": facts["load_ms"], "first_ms": facts["first_ms"]}
            entry |= {"samples_ns": [], "processor_s": [], "load_1m": [], "peak_rss_mb": None}
            workers.append((worker, entry))
            entries.append(entry)
        for entry, load, answer in in_rounds(workers, rounds, seconds, f"{size.name}:"):
            entry["load_1m"].append(load)
            entry["samples_ns"].append(answer["samples_ns"])
            entry["processor_s"].append(answer["processor_s"])
            entry["peak_rss_mb"] = answer["peak_rss_mb"]
    return entries
