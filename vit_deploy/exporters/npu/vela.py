"""Vela, Arm's compiler for Ethos-U accelerators, in a process of its own."""

from __future__ import annotations

import csv
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.child_processes import ending, of_children, python
from vit_deploy.core.compiled import Compiled, Fallback
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.errors import ConfigError, EngineError
from vit_deploy.formats.tflite.file import opened
from vit_deploy.formats.tflite.operators import read_steps

DISTRIBUTION = "ethos-u-vela"
FILE = "model_vela.tflite"
ON_NPU = "ethos-u"  # the custom operator that stands for everything on the accelerator
OBJECTION = re.compile(r"operator: (?P<operator>\w+), .*\nReason: (?P<reason>(?:.+\n?)+)")
OF_TYPE = re.compile(r"unsupported DataType (\w+)")
KIB, MEGA = 1024, 1e6
UNSAID = "its compiler does not say why"


class Vela:
    """Runs `vela` and reads its report."""

    targets = (
        *("ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u65-512"),
        *("ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048"),
    )
    formats = ("tflite",)
    settings: Mapping[str, str] = {
        "config": "a file of system configurations and memory modes (.ini)",
        "system-config": "clock and bandwidths of the system, as Ethos_U55_High_End_Embedded",
        "memory-mode": "where tensors and weights lie, as Sram_Only or Shared_Sram",
        "optimise": "Performance or Size",
        "arena-cache-size": "bytes of SRAM that tensors may take",
    }
    libraries = (DISTRIBUTION,)

    def check(self, source: Artifact, target: str) -> None:
        """Refuse files for several sizes.

        Raises:
            ConfigError: it is one.
        """
        if source.sizes:
            raise ConfigError(
                f"{source.path} is for several sizes of images, and Vela compiles files for one",
                fix="export one size",
            )

    def compile(self, source: Artifact, target: str, settings: Mapping[str, str], folder: Path) -> Compiled:
        """Write Vela's file into a folder; see `DeviceCompiler`.

        Raises:
            EngineError: Vela refuses the file or a setting, or lets nothing run on the accelerator.
        """
        version = metadata.version(DISTRIBUTION)
        with tempfile.TemporaryDirectory(prefix="vit-deploy-vela-") as made:
            told = _run(source.model_path, target, settings, Path(made), f"Vela {version}")
            compiled = Path(made) / f"{source.model_path.stem}_vela.tflite"
            operators, left = fallbacks(source.model_path, compiled, told)
            if sum(fallback.count for fallback in left) >= operators:
                reasons = ", ".join(dict.fromkeys(fallback.reason for fallback in left))
                raise EngineError(
                    f"Vela {version} lets nothing of {source.name} run on {target}: {reasons}",
                    fix="compile an int8-full artifact: vit-deploy quantize -p int8-full makes one",
                )
            summary = _summary(Path(made))
            (folder / FILE).write_bytes(compiled.read_bytes())
        return Compiled(
            target=target,
            compiler="Vela",
            version=version,
            file=FILE,
            operators=operators,
            left=left,
            estimates=estimates(summary),
            settings={
                "system-config": summary["system_config"],
                "memory-mode": summary["memory_mode"],
                **{name: value for name, value in settings.items() if name in ("optimise", "arena-cache-size")},
            },
        )


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
    objections = Counter((found["operator"], _reason(found["reason"])) for found in OBJECTION.finditer(told))
    left = Counter({key: count for key, count in objections.items() if key[0] in there})
    said = Counter[str]()
    for (operator, _), count in left.items():
        said[operator] += count
    left.update({(operator, UNSAID): count - said[operator] for operator, count in there.items()})
    ordered = sorted(((-count, operator, reason) for (operator, reason), count in left.items() if count > 0))
    return operators, tuple(Fallback(operator, -count, reason) for count, operator, reason in ordered)


def estimates(summary: Mapping[str, str]) -> dict[str, float]:
    """What Vela computed of speed and memory, from its summary; nothing was run."""
    seconds = float(summary["inference_time"])
    found = {
        "cycles": float(summary["cycles_total"]),
        "clock_mhz": float(summary["core_clock"]) / MEGA,
        "inference_ms": seconds * 1e3,
        "inferences_per_s": float(summary["inferences_per_second"]),
        "sram_bytes": float(summary["sram_memory_used"]) * KIB,
        "dram_bytes": float(summary["dram_memory_used"]) * KIB,
        "flash_bytes": sum(float(summary[f"{kind}_chip_flash_memory_used"]) for kind in ("on", "off")) * KIB,
    }
    return {name: float(f"{value:.6g}") for name, value in found.items()}


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


def _summary(folder: Path) -> dict[str, str]:
    [path] = folder.glob("*_summary_*.csv")
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.DictReader(file))


def _reason(text: str) -> str:
    """Vela's reason without the tensor that it is about."""
    if found := OF_TYPE.search(text):
        return f"computes in {found[1].lower()}"
    return "; ".join(" ".join(line.split()) for line in text.splitlines() if line.strip())
