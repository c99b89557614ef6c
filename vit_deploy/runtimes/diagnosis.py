"""What the doctor finds: engines, what they can use, and what keeps them from working."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit_deploy.core import saturation
from vit_deploy.core.host import Host, read_host
from vit_deploy.core.probes import ask
from vit_deploy.core.processor import cpu_features
from vit_deploy.runtimes.nvidia import Nvidia, look
from vit_deploy.runtimes.ort.provider_trials import CUDA, REMOTE, TENSORRT, Trial, try_provider
from vit_deploy.runtimes.packages import Installed, installed, unmet
from vit_deploy.runtimes.web.diagnosis import WebFound, look_for_browsers

OLDEST_PYTHON = (3, 11)
OLDEST_KERAS = 3


@dataclass(frozen=True)
class Engine:
    """A library that some command can use.

    Args:
        name: the usual name of the library.
        extra: the extra of this package that installs the library; empty where it is installed by its own name.
        distributions: any of which brings it; the first is the usual one.
    """

    name: str
    extra: str
    distributions: tuple[str, ...]

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f'pip install "vit-deploy[{self.extra}]"' if self.extra else f"pip install {self.distributions[0]}"

    def found(self, here: Installed) -> dict[str, str]:
        """Version of each of its distributions that is installed."""
        return {name: here[name].version for name in self.distributions if name in here}


ONNX_RUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-training",
)
# They bring CUDA to an ONNX Runtime that was built without, which does not list it then.
CUDA_PLUGINS = ("onnxruntime-ep-cuda13", "onnxruntime-ep-cuda12")
# It stands beside an ONNX Runtime, which it needs; before version 2 it was one, and writes over another's files.
QNN = "onnxruntime-qnn"
FIRST_QNN_PLUGIN = 2
HEXAGON = """
import onnxruntime as o, onnxruntime_qnn as q
o.register_execution_provider_library('QNNExecutionProvider', q.get_library_path())
answer = [d.device.type.name for d in o.get_ep_devices() if d.ep_name == 'QNNExecutionProvider']
"""
TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-rocm", "tf-nightly", "tf-nightly-cpu")
ENGINES = (
    Engine("onnxruntime", "onnx", (*ONNX_RUNTIMES, *CUDA_PLUGINS)),
    Engine("ai-edge-litert", "litert", ("ai-edge-litert",)),
    Engine("tensorflow", "export", TENSORFLOWS),
    Engine("keras", "export", ("keras",)),
    Engine("tf2onnx", "export", ("tf2onnx",)),
    Engine("onnx", "export", ("onnx",)),
    Engine("onnxscript", "export", ("onnxscript",)),
    Engine("openvino", "openvino", ("openvino",)),
    Engine(QNN, "qnn", (QNN,)),
    Engine("tensorflow-model-optimization", "compress", ("tensorflow-model-optimization",)),
    Engine("ethos-u-vela", "ethos", ("ethos-u-vela",)),
    Engine("tflite-micro", "tflm", ("tflite-micro",)),
    Engine("pillow", "export", ("pillow",)),
    Engine("vl-convert-python", "report", ("vl-convert-python",)),
    Engine("torch", "peers", ("torch",)),
    Engine("timm", "peers", ("timm",)),
    Engine("transformers", "peers", ("transformers",)),
)
# Whose requirements have to be met for the engines to work together.
CHECKED = (*(name for engine in ENGINES for name in engine.distributions), "tf-keras", "h5py", "onnx-ir", "vit-deploy")


@dataclass(frozen=True)
class Conflict:
    """Something that keeps installed engines from working, and what to do about it."""

    problem: str
    fix: str

    def to_dict(self) -> dict[str, str]:
        """Plain JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Args:
        host: the machine.
        features: the features of its CPU, by name; empty where they cannot be told.
        engines: each with the versions of its distributions, empty where it is missing.
        providers: that ONNX Runtime was built with; None where it is missing or cannot be imported.
        gpus: that TensorFlow sees; None where it was not asked.
        conflicts: what is wrong.
        openvino: what numbers it computes in on this CPU; None where it is missing or cannot be imported.
        trials: what came of each of the providers.
        nvidia: its GPUs and libraries; None where nobody looked.
        web: browsers, and the JavaScript of engines in them; None where nobody looked.
        hexagon: the kinds of devices on which Qualcomm's plugin runs files, "NPU" of a Hexagon processor; None where it
            is missing or cannot be used.
    """

    host: Host
    features: Mapping[str, bool]
    engines: Mapping[Engine, Mapping[str, str]]
    providers: tuple[str, ...] | None
    gpus: tuple[str, ...] | None
    conflicts: tuple[Conflict, ...]
    openvino: tuple[str, ...] | None = None
    trials: tuple[Trial, ...] = ()
    nvidia: Nvidia | None = None
    web: WebFound | None = None
    hexagon: tuple[str, ...] | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is no conflict, and may make a file answer wrong here."""
        runs_onnx = any(engine.name == "onnxruntime" and versions for engine, versions in self.engines.items())
        return (saturation.WARNING,) if runs_onnx and saturation.lacks_vnni(self.features) else ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "host": self.host.to_dict(),
            "cpu_features": dict(self.features),
            "engines": [
                {"name": engine.name, "installed": dict(versions), "install": engine.install}
                for engine, versions in self.engines.items()
            ],
            "providers": None if self.providers is None else list(self.providers),
            "provider_trials": [trial.to_dict() for trial in self.trials],
            "hexagon": None if self.hexagon is None else list(self.hexagon),
            "openvino": None if self.openvino is None else list(self.openvino),
            "gpus": None if self.gpus is None else list(self.gpus),
            "nvidia": None if self.nvidia is None else self.nvidia.to_dict(),
            "web": None if self.web is None else self.web.to_dict(),
            "warnings": list(self.warnings),
            "conflicts": [conflict.to_dict() for conflict in self.conflicts],
        }


def diagnose(*, gpu: bool = False) -> Diagnosis:
    """Look at this environment; engines are imported and tried in processes of their own, if at all.

    Args:
        gpu: whether TensorFlow, which takes seconds to import, is asked for its GPUs.
    """
    here = installed()
    problems = list(conflicts(here, os.environ, sys.version_info[:2]))
    providers = gpus = numbers = None
    nvidia, trials = look(here), tuple[Trial, ...]()
    if set(ONNX_RUNTIMES) & set(here):
        own = [name for name in ONNX_RUNTIMES if name in here]
        providers, failure = _asked("import onnxruntime as o; answer = o.get_available_providers()")
        if failure:
            problem = f"{own[0]} is installed and cannot be imported: {failure}"
            problems.append(Conflict(problem, _reinstall(own, own[0])))
        elif own == ["onnxruntime-gpu"] and "CUDAExecutionProvider" not in (providers or ()):
            problem = "onnxruntime-gpu is installed and has no CUDA: another package wrote over its files"
            problems.append(Conflict(problem, _reinstall(own, own[0])))
        listed = [name for name in providers or () if name not in REMOTE]
        plugged = [CUDA] if providers and set(CUDA_PLUGINS) & set(here) else []
        trials = tuple(map(try_provider, dict.fromkeys([*plugged, *listed])))
        problems += unusable(trials, f"{own[0]} {here[own[0]].version}", nvidia)
    hexagon = None
    if QNN in here and set(ONNX_RUNTIMES) & set(here):
        hexagon, failure = _asked(HEXAGON)
        if failure:
            problem = f"{QNN} {here[QNN].version} is installed and cannot be used: {failure}"
            problems.append(Conflict(problem, _reinstall([QNN], QNN)))
    if "openvino" in here:
        numbers, failure = _asked(
            "import openvino as o; answer = o.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')"
        )
        if failure:
            problem = f"openvino is installed and cannot be imported: {failure}"
            problems.append(Conflict(problem, _reinstall(["openvino"], "openvino")))
    if gpu and set(TENSORFLOWS) & set(here):
        program = "import tensorflow as tf; answer = [d.name for d in tf.config.list_physical_devices('GPU')]"
        gpus, failure = _asked(program)
        if failure:
            own = [name for name in TENSORFLOWS if name in here]
            problem = f"{own[0]} is installed and cannot be imported: {failure}"
            problems.append(Conflict(problem, _reinstall(own, own[0])))
    found = {engine: engine.found(here) for engine in ENGINES}
    return Diagnosis(
        read_host(),
        cpu_features(),
        found,
        providers,
        gpus,
        tuple(problems),
        numbers,
        trials=trials,
        nvidia=nvidia,
        web=look_for_browsers(),
        hexagon=hexagon,
    )


def unusable(trials: Sequence[Trial], package: str, nvidia: Nvidia) -> Iterator[Conflict]:
    """Providers that a package brings and that do not work here; TensorRT's only where there is one that fits.

    Args:
        trials: what came of the providers.
        package: that brings them, with its version.
        nvidia: what of NVIDIA is here.
    """
    for trial in trials:
        if trial.usable or (trial.provider == TENSORRT and not nvidia.tensorrt.fits_onnx_runtime):
            continue
        alone = trial.provider == "CPUExecutionProvider" or nvidia.has_driver or "driver" in trial.reason
        also = "" if alone else "; and there is no NVIDIA driver here"
        yield Conflict(f"{trial.provider} of {package} is not usable: {trial.reason}{also}", trial.fix)


def conflicts(here: Installed, environment: Mapping[str, str], python: Sequence[int]) -> Iterator[Conflict]:
    """What is wrong with a set of installed distributions.

    Args:
        here: the distributions, by normalised name.
        environment: variables, by name.
        python: major and minor version.
    """
    if tuple(python) < OLDEST_PYTHON:
        required = ".".join(map(str, OLDEST_PYTHON))
        yield Conflict(
            f"this is Python {'.'.join(map(str, python))}, and vit-deploy needs {required}",
            f"make an environment with Python {required} or newer",
        )
    for family, kept in ((ONNX_RUNTIMES, "onnxruntime-gpu"), (TENSORFLOWS, "tensorflow")):
        both = [name for name in family if name in here]
        if len(both) > 1:
            yield Conflict(
                f"{' and '.join(both)} are installed together, and write over each other's files",
                _reinstall(both, kept if kept in both else both[0]),
            )
    yield from _qnn_conflicts(here)
    yield from _keras_conflicts(here, environment)
    yield from _cuda_conflicts(here)
    yield from _version_conflicts(here)


def _version_conflicts(here: Installed) -> Iterator[Conflict]:
    """Among others of protobuf, which several engines share. What is missing altogether is no conflict."""
    families = (ONNX_RUNTIMES, TENSORFLOWS)
    # Who needs tensorflow is as happy with tensorflow-cpu.
    standing_in = {family[0]: here[name] for family in families for name in reversed(family) if name in here}
    for name in CHECKED:
        for requirement, version in unmet(here[name], {**here, **standing_in}) if name in here else ():
            required = f"{requirement.name}{requirement.specifier}"
            yield Conflict(
                f"{name} {here[name].version} needs {required}, and {requirement.name} {version} is installed",
                f'pip install "{required}"',
            )


def _qnn_conflicts(here: Installed) -> Iterator[Conflict]:
    if QNN not in here:
        return
    version, runtimes = here[QNN].version, [name for name in ONNX_RUNTIMES if name in here]
    if int(version.split(".")[0]) < FIRST_QNN_PLUGIN:
        if runtimes:
            yield Conflict(
                f"{' and '.join([QNN, *runtimes])} are installed together, and write over each other's files",
                f'pip uninstall -y {QNN} {" ".join(runtimes)} && pip install {runtimes[0]} "{QNN}>={FIRST_QNN_PLUGIN}"',
            )
    elif not runtimes:
        yield Conflict(
            f"{QNN} {version} is a plugin of ONNX Runtime, which is not installed", 'pip install "vit-deploy[qnn]"'
        )


def _keras_conflicts(here: Installed, environment: Mapping[str, str]) -> Iterator[Conflict]:
    keras = here.get("keras")
    if keras is not None and int(keras.version.split(".")[0]) < OLDEST_KERAS:
        yield Conflict(
            f"keras {keras.version} is installed, and vit-deploy is written for Keras 3",
            'pip install -U "keras>=3.10"; code for Keras 2 finds it as tf_keras: pip install tf_keras',
        )
    if environment.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true"):
        yield Conflict(
            "TF_USE_LEGACY_KERAS is set, so tf.keras is Keras 2 and its models are none that vit-deploy reads",
            "unset TF_USE_LEGACY_KERAS",
        )


def _cuda_conflicts(here: Installed) -> Iterator[Conflict]:
    """Two CUDA majors in one environment: only where the other one's libraries are really installed does it matter."""
    if "onnxruntime-gpu" not in here or (ours := cuda_major(here, "onnxruntime-gpu")) is None:
        return
    for name in ("tensorflow", "torch"):
        theirs = cuda_major(here, name) if name in here else None
        uses_gpu = f"nvidia-cuda-runtime-cu{theirs}" in here or f"nvidia-cudnn-cu{theirs}" in here
        if theirs is None or theirs == ours or not uses_gpu:
            continue
        fixes = {
            "tensorflow": "an environment for each: vit-deploy[gpu] in one, vit-deploy[gpu-tf] in the other; or, "
            "both for CUDA 12, vit-deploy[gpu-cuda12,gpu-tf]",
            "torch": f"an environment for each, or a torch for CUDA {ours}",
        }
        yield Conflict(
            f"onnxruntime-gpu {here['onnxruntime-gpu'].version} is made for CUDA {ours} and {name} "
            f"{here[name].version} for CUDA {theirs}; in one environment one of them falls back to the CPU, for both "
            "write libcudnn.so.9",
            fixes[name],
        )


def cuda_major(here: Installed, name: str) -> int | None:
    """The CUDA that a distribution's extras bring along; None where they do not say."""
    for requirement in here[name].requirements:
        if suffix := re.fullmatch(r"nvidia-(?:cuda-runtime|cudnn)-cu(\d+)", requirement.name):
            return int(suffix[1])
        # Since CUDA 13 the version alone says it.
        if requirement.name in ("nvidia-cuda-runtime", "cuda-toolkit") and requirement.specifier:
            return min(int(clause.version.split(".")[0]) for clause in requirement.specifier)
    return None


def _reinstall(names: Sequence[str], kept: str) -> str:
    # Files that both have are gone once one of them is uninstalled.
    return f"pip uninstall -y {' '.join(names)} && pip install {kept}"


def _asked(program: str) -> tuple[tuple[str, ...] | None, str]:
    """What a program finds in an environment like this one, or in words why it cannot."""
    answer = ask("-c", program + "\nimport json; print('ANSWER' + json.dumps(list(answer)))")
    return (None, answer.failure) if answer.failure else (tuple(answer.value), "")
