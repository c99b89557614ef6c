"""The command `vit-deploy doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from vit_deploy.cli.columns import prose
from vit_deploy.cli.options import OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import Option

if TYPE_CHECKING:  # at run time they would bring NumPy into every `--help`
    from vit_deploy.core.gpu import Gpu
    from vit_deploy.runtimes.diagnosis import Diagnosis
    from vit_deploy.runtimes.nvidia import Nvidia
    from vit_deploy.runtimes.web.diagnosis import WebFound


@command
def doctor(
    gpu: Annotated[bool, Option(help="Ask TensorFlow for its GPUs too, which takes seconds.")] = False,
    *,
    printing: OutputOptions,
) -> int:
    """Show engines, what they can use, and conflicts with their fixes; exits with 1 if there are any.

    Each provider of ONNX Runtime opens a model of some bytes in a process of its own.
    """
    from vit_deploy.api import insight as api
    from vit_deploy.cli.output import Output

    out = Output("doctor", printing)
    with out.progress() as progress:
        outcome = api.doctor(gpu=gpu, progress=progress)
    return out.show(outcome, columns=(prose("what"), prose("found")), rows=_rows(outcome.result))


def _rows(found: Diagnosis) -> list[tuple[str, str]]:
    rows = [
        ("machine", f"{found.host.cpu}, {found.host.cores_in_words}, {found.host.architecture}"),
        ("CPU features", ", ".join(name for name, there in found.features.items() if there) or "unknown"),
        ("Python", f"{found.host.python} on {found.host.os}"),
    ]
    for engine, versions in found.engines.items():
        there = ", ".join(
            version if name == engine.name else f"{version} ({name})" for name, version in versions.items()
        )
        rows.append((engine.name, there or f"missing -> {engine.install}"))
    rows += _providers(found)
    if found.openvino is not None:
        rows.append(("OpenVINO computes in", ", ".join(found.openvino)))
    if found.hexagon is not None:
        there = "its own processor" if "NPU" in found.hexagon else "one that is emulated here"
        rows.append(
            ("Qualcomm's Hexagon", f"{there}, with --runtime qnn" if found.hexagon else "not found by its plugin")
        )
    if found.gpus is not None:
        rows.append(("TensorFlow's GPUs", ", ".join(found.gpus) or "none"))
    if found.nvidia is not None:
        rows += _nvidia(found.nvidia)
    if found.web is not None:
        rows += _web(found.web)
    rows += [("warning", warning) for warning in found.warnings]
    for index, conflict in enumerate(found.conflicts, 1):
        rows.append((f"conflict {index}", f"{conflict.problem}; fix: {conflict.fix}"))
    rows.append(("verdict", f"{len(found.conflicts)} to be resolved" if found.conflicts else "no conflict"))
    return rows


def _providers(found: Diagnosis) -> Iterator[tuple[str, str]]:
    if found.providers is None:
        return
    yield "ONNX Runtime runs on", ", ".join(trial.provider for trial in found.trials if trial.usable) or "nothing"
    for trial in found.trials:
        if not trial.usable:
            yield f"not on {trial.provider}", f"{trial.reason} -> {trial.fix}"


def _nvidia(found: Nvidia) -> Iterator[tuple[str, str]]:
    if not found.gpus:
        yield "NVIDIA GPUs", "none that CUDA's driver shows this process" if found.has_driver else "none: no driver"
    for index, gpu in enumerate(found.gpus):
        yield f"GPU {index}", ", ".join(_facts(found, gpu))
    tensorrt = found.tensorrt
    there = [f"libnvinfer {version} ({place})" for version, place in tensorrt.libraries.items()]
    there += [f"{name} {version}" for name, version in tensorrt.packages.items()]
    wanted = f"; ONNX Runtime asks for version {tensorrt.required}" if tensorrt.required is not None else ""
    if there:
        yield "TensorRT", ", ".join(there) + wanted
    elif found.gpus:
        yield "TensorRT", f'missing -> pip install "vit-deploy[tensorrt]"{wanted}'
    if found.gpus:
        missing = "missing, so that driver, MIG, clocks and energy are not told -> pip install nvidia-ml-py"
        yield "nvidia-ml-py", found.nvidia_ml_py or missing


def _web(found: WebFound) -> Iterator[tuple[str, str]]:
    for browser in found.browsers:
        if browser.failure:
            yield "browser", f"{browser.path}, which opens no page: {browser.failure}"
            continue
        asked = f"WebGPU on {browser.adapter} ({browser.provider})" if browser.adapter else "no WebGPU"
        yield "browser", f"{browser.path}: {browser.name}, {asked}" if browser.name else browser.path
    if not found.browsers:
        yield "browser", "none -> apt install chromium, where models are to run in one"
    packages = ", ".join(f"{package.name} {package.version} ({package.licence})" for package in found.packages)
    yield "engines in browsers", packages or f"missing -> {found.install}"


def _facts(found: Nvidia, gpu: Gpu) -> Iterator[str]:
    from vit_deploy.core.quantities import megabytes

    yield gpu.name
    if gpu.memory_mb is not None:
        yield megabytes(int(gpu.memory_mb * 1e6))
    yield f"driver {gpu.driver or 'unknown'} serves CUDA {gpu.cuda or 'unknown'}"
    runs = found.runs_on(gpu)
    code = ", ".join(f"{major}.{minor}" for major, minor in found.machine_code or ())
    said = {
        True: "onnxruntime-gpu has machine code for it",
        False: f"onnxruntime-gpu has machine code for {code} alone",
        None: "whether onnxruntime-gpu has machine code for it is unknown",
    }
    yield f"compute capability {gpu.compute_capability or 'unknown'} ({said[runs]})"
    if found.tensorrt.rtx_runs_on(gpu) is False:
        yield "which TensorRT for RTX does not know: its plans are for others"
    if gpu.mig:
        yield "divided (MIG)"
    if gpu.compute_mode not in (None, "default"):
        yield f"compute mode {gpu.compute_mode}"
