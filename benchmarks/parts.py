"""Of which parts do the benchmarks consist, and what does each of them need?"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks.job import Job
from benchmarks.records import Result, read
from benchmarks.targets import Target, target_table
from vit_deploy.runtimes import RUNTIMES

_EXPORTING = ("tensorflow", "tf2onnx", "onnxruntime", "ai_edge_litert")
_TRAINED = (*_EXPORTING, "litert_quantizer", "sklearn")


@dataclass(frozen=True)
class Part:
    """One question and its measurement.

    Args:
        name: of the option, of the folder of its results, and of its block in `benchmarks/README.md`.
        asks: the question, for readers.
        measuring: a module with `measure(job)`, which yields each result with its name as soon as it is there.
        tables: a module with `targets(results)` and `render(results)`, which need no engine.
        needs: modules that have to be installed.
        extra: of vit-deploy, that brings them.
        runtime: of vit-deploy, that has to be there too.
    """

    name: str
    asks: str
    measuring: str
    tables: str
    needs: tuple[str, ...]
    extra: str
    runtime: str = ""

    def missing(self) -> list[str]:
        """Modules it needs that are not installed, and what its runtime lacks."""
        modules = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return [*modules, *(RUNTIMES[self.runtime].missing() if self.runtime else ())]

    def measure(self, job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each result with its name, as soon as it is there."""
        return cast(Iterator[tuple[str, dict[str, Any]]], importlib.import_module(self.measuring).measure(job))

    def stored(self, results: Path) -> dict[str, Result]:
        """What it left in `results`, by name."""
        return read(results / self.name)

    def targets(self, found: Mapping[str, Result]) -> list[Target]:
        """What is to be reached, by the results at hand."""
        return list(importlib.import_module(self.tables).targets(found))

    def render(self, found: Mapping[str, Result]) -> str:
        """Markdown: targets, then what was measured."""
        targets = self.targets(found)
        text = cast(str, importlib.import_module(self.tables).render(found))
        return "\n\n".join([*([target_table(targets)] if targets else []), text])


PARTS: Mapping[str, Part] = {
    part.name: part
    for part in (
        Part(
            "export",
            "how long does an export take, how large and how fast is the file, beside what people use today",
            "benchmarks.export",
            "benchmarks.export_tables",
            needs=_EXPORTING,  # and of the others, each way its own
            extra="cpu",
        ),
        Part(
            "precisions",
            "how large, how fast and how near to fp32 is each precision",
            "benchmarks.precisions",
            "benchmarks.precision_tables",
            needs=(*_EXPORTING, "litert_quantizer"),
            extra="cpu",
        ),
        Part(
            "loading",
            "what do loading and resizing cost",
            "benchmarks.loading",
            "benchmarks.loading_tables",
            needs=("tensorflow", "keras"),
            extra="cpu",
        ),
        Part(
            "accuracy",
            "what does each precision cost a trained model",
            "benchmarks.accuracy",
            "benchmarks.accuracy_tables",
            needs=_TRAINED,
            extra="test",
        ),
        Part(
            "foundation",
            "what does each precision cost a real pretrained model",
            "benchmarks.foundation",
            "benchmarks.foundation_tables",
            needs=(*_TRAINED, "PIL"),
            extra="test",
        ),
        Part(
            "ranges",
            "which way of finding ranges and of moving outliers keeps most of a trained model",
            "benchmarks.ranges",
            "benchmarks.ranges_tables",
            needs=_TRAINED,
            extra="test",
        ),
        Part(
            "processors",
            "what do integer files answer on an x86 processor without VNNI",
            "benchmarks.processors",
            "benchmarks.processors_tables",
            needs=(*_TRAINED, "onnx"),
            extra="test",
        ),
        Part(
            "arm",
            "what do fp16 ONNX files answer on Arm processors that compute in half",
            "benchmarks.arm",
            "benchmarks.arm_tables",
            needs=(*_TRAINED, "onnx"),
            extra="test",
        ),
        Part(
            "hexagon",
            "what do ONNX files for Qualcomm's Hexagon answer on the emulated processor",
            "benchmarks.hexagon",
            "benchmarks.hexagon_tables",
            needs=(*_TRAINED, "onnx", "onnxruntime_qnn"),
            extra="test",
        ),
        Part(
            "compression",
            "what do pruning, clustering and quantization-aware training cost and bring",
            "benchmarks.compression",
            "benchmarks.compression_tables",
            needs=(*_TRAINED, "tf_keras", "tensorflow_model_optimization"),
            extra="compress",
        ),
        Part(
            "shrink",
            "what does removing heads, hidden units and blocks cost and bring",
            "benchmarks.shrink",
            "benchmarks.shrink_tables",
            needs=(*_TRAINED, "tf_keras", "tensorflow_model_optimization"),
            extra="compress",
        ),
        Part(
            "gpu",
            "how fast, how right and how steady is it on an NVIDIA GPU, beside PyTorch",
            "benchmarks.gpu",
            "benchmarks.gpu_tables",
            needs=("onnxruntime", "onnx", "torch", "pynvml"),
            extra="gpu",
        ),
        Part(
            "streams",
            "what does a session cost that threads may share",
            "benchmarks.streams",
            "benchmarks.streams_tables",
            needs=(*_EXPORTING, "openvino"),
            extra="openvino",
        ),
        Part(
            "images",
            "how many images a second does `embed` run, and in how much memory",
            "benchmarks.images",
            "benchmarks.images_tables",
            needs=_EXPORTING,  # and of the others, each way its own
            extra="cpu",
        ),
        Part(
            "census",
            "which of timm's names are read, and how exactly",
            "benchmarks.census",
            "benchmarks.census_tables",
            needs=("torch", "timm"),
            extra="peers",
        ),
        Part(
            "conventions",
            "do files of each convention answer as the library that it comes from",
            "benchmarks.conventions",
            "benchmarks.conventions_tables",
            needs=(*_EXPORTING, "litert_quantizer", "torch", "timm"),
            extra="peers",
        ),
        Part(
            "rotary",
            "what do rotary positions cost, beside a position table",
            "benchmarks.rotary",
            "benchmarks.rotary_tables",
            needs=_EXPORTING,
            extra="cpu",
        ),
        Part(
            "web",
            "how large, how fast and how right is each file in a browser, beside its native engine",
            "benchmarks.web",
            "benchmarks.web_tables",
            needs=(*_EXPORTING, "litert_quantizer"),
            extra="cpu",
            runtime="web",
        ),
        Part(
            "resolutions",
            "what do files for images of any size cost, and one file for several",
            "benchmarks.resolutions",
            "benchmarks.resolutions_tables",
            needs=_EXPORTING,
            extra="cpu",
        ),
        Part(
            "startup",
            "how long does the command line take to start, beside a bare Typer program",
            "benchmarks.startup",
            "benchmarks.startup_tables",
            needs=("typer",),
            extra="cpu",
        ),
        Part(
            "quickstart",
            "what do the first commands of the README print",
            "benchmarks.quickstart",
            "benchmarks.quickstart",
            needs=_EXPORTING,
            extra="cpu",
        ),
    )
}
