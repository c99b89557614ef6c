"""Vela, Arm's compiler for Ethos-U accelerators, run in a process of its own."""

from __future__ import annotations

import csv
import importlib.util
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vit_deploy.core.child_processes import ending, of_children, python
from vit_deploy.core.compiled import Fallback
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.errors import EngineError
from vit_deploy.formats.tflite.file import opened
from vit_deploy.formats.tflite.operators import read_steps

DISTRIBUTION = "ethos-u-vela"
MODULE = "ethosu"
NAME = "Vela"
ON_NPU = "ethos-u"  # the custom operator that stands for everything on the accelerator
OBJECTION = re.compile(r"operator: (?P<operator>\w+), .*\nReason: (?P<reason>(?:.+\n?)+)")
OF_TYPE = re.compile(r"unsupported DataType (\w+)")
KIB, MEGA = 1024, 1e6
UNSAID = "its compiler does not say why"


@dataclass(frozen=True)
class VelaFile:
    """What Vela made of a TFLite file.

    Args:
        version: of Vela.
        content: the compiled file.
        operators: the number of operators of the source.
        left: those that run on the CPU, the most frequent first.
        summary: the figures of its report, by their names there.
    """

    version: str
    content: bytes
    operators: int
    left: tuple[Fallback, ...]
    summary: Mapping[str, str]

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs on the accelerator."""
        return sum(fallback.count for fallback in self.left) >= self.operators

    @property
    def estimates(self) -> dict[str, float]:
        """What Vela computed of speed and memory; nothing was run."""
        figures = {
            "cycles": self._figure("cycles_total"),
            "clock_mhz": self._figure("core_clock") / MEGA,
            "inference_ms": self._figure("inference_time") * 1e3,
            "inferences_per_s": self._figure("inferences_per_second"),
            "sram_bytes": self._figure("sram_memory_used") * KIB,
            "dram_bytes": self._figure("dram_memory_used") * KIB,
            "flash_bytes": sum(self._figure(f"{kind}_chip_flash_memory_used") for kind in ("on", "off")) * KIB,
        }
        return {name: float(f"{value:.6g}") for name, value in figures.items()}

    def _figure(self, name: str) -> float:
        return float(self.summary[name])


def is_installed() -> bool:
    """Whether this Python has Vela."""
    return importlib.util.find_spec(MODULE) is not None


def compile_file(model: Path, target: str, settings: Mapping[str, str] | None = None) -> VelaFile:
    """Compile a TFLite file.

    Args:
        model: the file.
        target: an accelerator, as `ethos-u55-256`.
        settings: options of Vela by their names, as `memory-mode`.

    Raises:
        EngineError: Vela refuses the file or a setting.
        ArtifactError: it is no TFLite file, or a damaged one.
    """
    version = metadata.version(DISTRIBUTION)
    with tempfile.TemporaryDirectory(prefix="vit-deploy-vela-") as folder:
        told = _run(model, target, settings or {}, Path(folder), f"{NAME} {version}")
        compiled = Path(folder) / f"{model.stem}_vela.tflite"
        operators, left = fallbacks(model, compiled, told)
        [summary] = Path(folder).glob("*_summary_*.csv")
        with summary.open(newline="", encoding="utf-8") as file:
            return VelaFile(version, compiled.read_bytes(), operators, left, next(csv.DictReader(file)))


def fallbacks(source: Path, compiled: Path, told: str) -> tuple[int, tuple[Fallback, ...]]:
    """The number of operators of a file, and those that its compiled file leaves to the CPU, the most frequent first.

    Args:
        source: the TFLite file.
        compiled: what Vela made of it.
        told: what Vela said about the operators that it leaves.
    """
    with opened(source) as model:
        operators = sum(1 for _ in read_steps(model))
    with opened(compiled) as model:
        there = Counter(step.kind for step in read_steps(model) if step.kind != ON_NPU)
    objections = Counter((found["operator"], reason_in(found["reason"])) for found in OBJECTION.finditer(told))
    left = Counter({key: count for key, count in objections.items() if key[0] in there})
    said = Counter[str]()
    for (operator, _), count in left.items():
        said[operator] += count
    left.update({(operator, UNSAID): count - said[operator] for operator, count in there.items()})
    ordered = sorted((-count, operator, reason) for (operator, reason), count in left.items() if count > 0)
    return operators, tuple(Fallback(operator, -count, reason) for count, operator, reason in ordered)


def reason_in(text: str) -> str:
    """Vela's reason without the tensor that it is about."""
    if found := OF_TYPE.search(text):
        return f"computes in {found[1].lower()}"
    return "; ".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def _run(model: Path, target: str, settings: Mapping[str, str], folder: Path, name: str) -> str:
    """What Vela said while it compiled a file into a folder."""
    options = [f"--{option}={value}" for option, value in settings.items()]
    fixed = ["--accelerator-config", target, "--output-dir", str(folder)]
    command = python("-m", "ethosu.vela", engine_path(model.absolute()), *fixed, *options)
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=of_children(), cwd=folder, check=False
    )
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        why = _without_type(lines[-1]) if lines else ending(done.returncode)
        raise EngineError(
            f"{name} cannot compile {model} for {target}: {why}",
            fix="take another setting, or another version of ethos-u-vela",
        )
    return done.stdout


def _without_type(line: str) -> str:
    """The last line of a traceback without the exception's name."""
    return re.sub(r"^[\w.]+: ", "", line).strip("'")
