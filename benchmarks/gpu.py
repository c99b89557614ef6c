"""Measurements on an NVIDIA GPU: latency beside PyTorch, proof, steadiness, energy.

Artifacts are taken from the folder in the variable VIT_DEPLOY_GPU_BUNDLES (`base/onnx-fp32`, `base-cuda/onnx-fp16`, …),
so that they can be made on another machine; those that are not there are made, which takes the extra `export`.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.job import Job
from benchmarks.latency import in_rounds
from benchmarks.processes import ROOT, environment, run_command
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.sizes import Size
from vit_deploy.core.child_processes import python
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import EngineError
from vit_deploy.performance.bench import Case, Plan, bench
from vit_deploy.performance.process import WORKER, CaseProcess
from vit_deploy.runtimes.cuda.card import open_card
from vit_deploy.verification.tolerances import Limits
from vit_deploy.verification.verifying import verify

BUNDLES = "VIT_DEPLOY_GPU_BUNDLES"
TORCH_WORKER = python("-m", "benchmarks.torch_worker")
TIMEOUT_S = 300.0
BATCHES = (1, 32)
SHORT_RUNS, SHORT_S = 6, 0.5
ENERGY_S, POLL_S = 6.0, 0.02
ENERGY_BATCH = 32
GPU_TESTS = (
    *(f"tests/runtimes/test_{name}.py" for name in ("gpu", "cuda_memory", "tensorrt_gpu")),
    "tests/performance/test_bench_on_gpu.py",
)


@dataclass(frozen=True)
class Way:
    """One way of running the same weights.

    Args:
        name: in the tables.
        artifact: of those of a size: "" for the standard files, "-cuda" for those made for CUDA.
        precision: of the artifact; in PyTorch of the weights.
        cuda_graph: whether calls are replayed.
        torch: whether PyTorch runs it.
        one_product: whether query, key and value are one product in PyTorch.
    """

    name: str
    bundle: str
    precision: str
    cuda_graph: bool
    torch: bool = False
    one_product: bool = False


DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
WAYS = (
    Way("standard file", "", "fp16", cuda_graph=False),
    Way("standard file, CUDA graph", "", "fp16", cuda_graph=True),
    Way("made for CUDA", "-cuda", "fp16", cuda_graph=False),
    Way("made for CUDA, CUDA graph", "-cuda", "fp16", cuda_graph=True),
    Way("PyTorch", "", "fp16", cuda_graph=False, torch=True, one_product=True),
    Way("PyTorch, CUDA graph", "", "fp16", cuda_graph=True, torch=True, one_product=True),
    Way("PyTorch, CUDA graph, three products", "", "fp16", cuda_graph=True, torch=True),
    Way("made for CUDA, CUDA graph", "-cuda", "bf16", cuda_graph=True),
    Way("PyTorch, CUDA graph", "", "bf16", cuda_graph=True, torch=True, one_product=True),
    Way("standard file, CUDA graph", "", "fp32", cuda_graph=True),
    Way("made for CUDA, CUDA graph", "-cuda", "fp32", cuda_graph=True),
    Way("PyTorch, CUDA graph", "", "fp32", cuda_graph=True, torch=True, one_product=True),
)


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """One result a size."""
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as made:
        folder = Path(os.environ.get(BUNDLES) or made)
        for size in job.chosen("base"):
            facts = run_facts()
            _make(size, folder)
            card = open_card(0)
            if card is None:
                raise EngineError("there is no NVIDIA GPU to measure on", fix="run this part where there is one")
            rounds, seconds = (2, 0.1) if job.quick else (4, 0.4)
            yield (
                size.name,
                {
                    **facts,
                    "gpu": card.facts.to_dict(),
                    "proofs": _proofs(size, folder),
                    "latency": [
                        entry for batch in BATCHES for entry in _latencies(size, folder, batch, rounds, seconds)
                    ],
                    "steadiness": _steadiness(folder / size.name / "onnx-fp32"),
                    "energy": _energy(folder / f"{size.name}-cuda" / "onnx-fp16"),
                },
            )
        facts = run_facts()
        yield "acceptance", {**facts, "gpu": card.facts.to_dict(), "checks": _checks(folder)}


def _checks(folder: Path) -> list[dict[str, str]]:
    """What the tests that need a GPU found: of each its name, its outcome, and why it did not pass."""
    progress("the tests that need a GPU")
    with tempfile.TemporaryDirectory() as made:
        report = Path(made) / "tests.xml"
        command = python("-m", "pytest", "-q", "-m", "gpu", "-n", "0", f"--junitxml={report}", *GPU_TESTS)
        subprocess.run(command, cwd=ROOT, env=environment() | {BUNDLES: str(folder)}, stdout=subprocess.DEVNULL)
        cases = ElementTree.parse(report).getroot().iter("testcase")
        return [
            {"check": case.get("name", ""), "outcome": outcome, "detail": detail}
            for case in cases
            for outcome, detail in [_outcome(case)]
        ]


def _outcome(case: ElementTree.Element) -> tuple[str, str]:
    for tag, word in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        if (found := case.find(tag)) is not None:
            return word, (found.get("message") or "").replace(str(Path.home()), "~")
    return "passed", ""


def _make(size: Size, folder: Path) -> None:
    """Make the artifacts that are not there: fp32 by exporting, the others of it."""
    for kind in dict.fromkeys(way.bundle for way in WAYS):
        target = folder / f"{size.name}{kind}"
        wanted = dict.fromkeys(("fp32", *(way.precision for way in WAYS if way.bundle == kind and not way.torch)))
        missing = [each for each in wanted if not (target / f"onnx-{each}").is_dir()]
        if "fp32" in missing:
            words = ["export", *size.arguments, "--format", "onnx", *(["--for", "cuda"] if kind else [])]
        else:
            words = ["quantize", str(target / "onnx-fp32")]
        if missing:
            progress(f"{size.name}{kind}: making {', '.join(missing)}")
            words += [word for each in missing for word in ("--precision", each)]
            run_command(*words, "--no-speed", "-o", str(target))


def _proofs(size: Size, folder: Path) -> list[dict[str, Any]]:
    """Every artifact on the GPU, and fp32 with TF32 allowed as well."""
    kinds = dict.fromkeys((way.bundle, way.precision, False) for way in WAYS if not way.torch)
    found = []
    for bundle, precision, tf32 in (*kinds, ("", "fp32", True), ("-cuda", "fp32", True)):
        progress(f"{size.name}{bundle}: proving {precision}{' with TF32' if tf32 else ''}")
        artifact = read_artifact(folder / f"{size.name}{bundle}" / f"onnx-{precision}")
        checked = verify(artifact, runtime="onnxruntime", provider="cuda", limits=Limits(allow_tf32=tf32))
        parity = checked.parity
        found.append(
            {
                **{"bundle": bundle, "precision": precision, "tf32": tf32, "provider": checked.provider},
                **{"ok": parity.ok, "max_abs": parity.max_abs, "snr_db": parity.snr_db},
                **{"tolerance": parity.tolerance.max_abs, "failures": list(parity.failures)},
            }
        )
    return found


def _latencies(size: Size, folder: Path, batch: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """All ways side by side, each in a process of its own, taking turns in rounds."""
    os.environ["PYTHONPATH"] = environment()["PYTHONPATH"]  # the worker of PyTorch imports this package
    entries: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        running: list[tuple[CaseProcess, dict[str, Any]]] = []
        for way in WAYS:
            entry = {"way": way.name, "precision": way.precision, "batch": batch, "error": None}
            entries.append(entry)
            progress(f"{size.name} x{batch}: loading {way.name} ({way.precision})")
            worker = stack.enter_context(CaseProcess(way.name, TIMEOUT_S, TORCH_WORKER if way.torch else WORKER))
            try:
                told = worker.ask(_request(way, size, folder, batch))
                entry["warmup_flat"] = worker.ask({"warmup": None})["flat"]
            except EngineError as error:
                entry["error"] = error.message
                progress(error.message)
                continue
            entry |= {name: told.get(name) for name in ("load_ms", "first_ms", "snr_db")} | {"samples_ns": []}
            entry["transfer_ms"] = statistics.median(told["transfer_ns"]) / 1e6 if told["transfer_ns"] else None
            running.append((worker, entry))
        for entry, _, answer in in_rounds(running, rounds, seconds, f"{size.name} x{batch}:"):
            entry["samples_ns"].append(answer["samples_ns"])
            entry["peak_gpu_mb"] = answer["peak_gpu_mb"]
    return entries


def _request(way: Way, size: Size, folder: Path, batch: int) -> dict[str, Any]:
    bundle = folder / f"{size.name}{way.bundle}" / f"onnx-{'fp32' if way.torch else way.precision}"
    return {
        **{"artifact": str(bundle), "runtime": "torch" if way.torch else "onnxruntime", "provider": "cuda"},
        **{"batch": batch, "threads": None, "spare_threads": None, "streams": 1, "device": 0},
        **{"cuda_graph": way.cuda_graph, "dtype": DTYPES[way.precision], "one_product": way.one_product},
    }


def _steadiness(bundle: Path) -> list[dict[str, Any]]:
    """What short benchmarks of the same file say of themselves."""
    found = []
    for _ in range(SHORT_RUNS):
        progress("a short benchmark")
        [result] = bench([Case(bundle, "onnxruntime", "cuda")], Plan(seconds=SHORT_S))
        found.append({"p50_ms": result.p50_ms, "flat": result.flat, "unsteady": list(result.unsteady)})
    return found


def _energy(bundle: Path) -> dict[str, Any] | None:
    """Energy as the benchmark tells it, beside the card's power polled meanwhile; None where it does not tell."""
    progress("energy")
    watts: list[float] = []
    with _polled(watts):
        case = Case(bundle, "onnxruntime", "cuda", batch=ENERGY_BATCH, cuda_graph=True)
        [result] = bench([case], Plan(seconds=ENERGY_S))
    if result.gpu_energy_j is None or not watts:
        return None
    return {
        "counted_j": result.gpu_energy_j,
        "polled_w": statistics.median(sorted(watts)[len(watts) // 2 :]),  # while it was busy
        "seconds": sum(result.round_ns) / 1e9,
        "mj_per_image": result.gpu_energy_mj_per_image,
    }


@contextlib.contextmanager
def _polled(watts: list[float]) -> Iterator[None]:
    """Power of the first card, read again and again."""
    import pynvml

    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    stop = threading.Event()

    def poll() -> None:
        while not stop.wait(POLL_S):
            watts.append(pynvml.nvmlDeviceGetPowerUsage(card) / 1e3)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
