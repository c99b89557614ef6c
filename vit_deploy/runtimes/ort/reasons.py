"""The usual failures of CUDA and TensorRT in words, read out of what ONNX Runtime writes (it is not imported here)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from vit_deploy.core.engine_errors import Reason

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* \[\w:onnxruntime:.*?\] ")
PLACE = re.compile(r"^\S*[/\\]\S+\.(?:cc|cpp|cu|h|hpp|cuh):\d+ ")
PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
DETAILS = re.compile(r"\s*;\s*(?:GPU|hostname|file|line|expr)=[^;]*")
MISSING = re.compile(r"([^\s:/\\]+): cannot open shared object file|which depends on \"([^\"]+)\" which is missing")
DRIVER, TENSORRT = "libcuda.so", ("libnvinfer", "libnvonnxparser", "nvinfer", "nvonnxparser")


@dataclass(frozen=True)
class Setting:
    """What an ONNX Runtime was built for, and what it was asked to do.

    Args:
        provider: "cpu", "cuda", "tensorrt" or "htp".
        device: index of the GPU among those that the process sees.
        cuda: version that it was built with, such as "13.0"; empty where it does not tell.
    """

    provider: str
    device: int = 0
    cuda: str = ""

    @property
    def extra(self) -> str:
        """How to install what the provider needs, as an instruction."""
        old = self.cuda.startswith("12")
        if self.provider == "tensorrt":
            return 'pip install "tensorrt-cu12>=10,<11"' if old else 'pip install "vit-deploy[tensorrt]"'
        return f'pip install "vit-deploy[{"gpu-cuda12" if old else "gpu"}]"'


def known_reason(text: str, setting: Setting) -> Reason | None:
    """The first of the usual failures of a GPU that a text tells of; None if there is none, and for processors.

    Args:
        text: all that was written and raised.
        setting: the setting in which it happened.
    """
    if setting.provider == "cpu" or setting.provider.startswith("htp"):
        return None
    for pattern, reason in USUAL:
        if pattern.search(text):
            return reason(setting)
    return _missing_library(text, setting)


def cleaned(text: str) -> str:
    """A text without colours, times, places in ONNX Runtime's source, and lines that are then empty."""
    lines = [_cleaned_line(line) for line in text.splitlines()]
    return "\n".join(line for line in lines if line)


def _cleaned_line(line: str) -> str:
    line = COLOUR.sub("", line).strip()
    line = STAMP.sub("", line).strip()
    while place := PLACE.match(line):
        line = _without_signature(line[place.end() :])
        line = PREFIX.sub("", line).strip()
    return DETAILS.sub("", PREFIX.sub("", line)).rstrip("; ").strip()


def _without_signature(line: str) -> str:
    """What follows a C++ function's name, its arguments and its template's."""
    end = _closed(line, line.find("("), "()")
    if end is None:
        return line
    rest = line[end:].removeprefix(" const").lstrip()
    while rest.startswith("[with "):
        end = _closed(rest, 0, "[]")
        if end is None:
            break
        rest = rest[end:].lstrip()
    return rest


def _closed(line: str, start: int, pair: str) -> int | None:
    """Where the bracket at `start` is closed, one past it."""
    depth = 0
    for place in range(max(start, 0), len(line)) if start >= 0 else ():
        depth += (line[place] == pair[0]) - (line[place] == pair[1])
        if not depth:
            return place + 1
    return None


def _missing_library(text: str, setting: Setting) -> Reason | None:
    found = [name for match in MISSING.finditer(COLOUR.sub("", text)) for name in match.groups() if name]
    libraries = list(dict.fromkeys(found))
    if not libraries:
        return None
    if any(name.startswith(DRIVER) for name in libraries):
        return Reason(
            f"there is no NVIDIA driver here: {DRIVER}.1 is missing",
            "install NVIDIA's driver, or run with --provider cpu",
        )
    verb = "is" if len(libraries) == 1 else "are"
    owner = "TensorRT" if any(name.startswith(TENSORRT) for name in libraries) else "CUDA"
    return Reason(f"{', '.join(libraries)} of {owner} {verb} missing", setting.extra)


def _old_driver(setting: Setting) -> Reason:
    if setting.cuda.startswith("12"):
        return Reason("the driver is too old for CUDA 12", "install NVIDIA's driver 525 or newer")
    major = setting.cuda.partition(".")[0] or "13"
    return Reason(
        f"the driver is too old for CUDA {major}",
        'install NVIDIA\'s driver 580 or newer, or pip install "vit-deploy[gpu-cuda12]" in an environment of its own',
    )


def _no_device(setting: Setting) -> Reason:
    return Reason(
        "CUDA finds no GPU that this process may use",
        "look at nvidia-smi and at CUDA_VISIBLE_DEVICES, or run with --provider cpu",
    )


def _wrong_device(setting: Setting) -> Reason:
    return Reason(
        f"this process sees no GPU {setting.device}",
        "count from 0 those that nvidia-smi lists and CUDA_VISIBLE_DEVICES leaves",
    )


def _no_kernels(setting: Setting) -> Reason:
    return Reason(
        "this ONNX Runtime has no machine code for a GPU of this generation",
        "install a build that has: vit-deploy doctor says which generations this one knows; or run with --provider cpu",
    )


def _no_memory(setting: Setting) -> Reason:
    return Reason("out of GPU memory", "take a smaller batch, or fewer cases at once")


def _busy(setting: Setting) -> Reason:
    return Reason(
        "the GPU is busy with another process that has it alone, or not available",
        "look at nvidia-smi for its compute mode and its processes",
    )


def _no_graph(setting: Setting) -> Reason:
    return Reason(
        f"a CUDA graph holds all of a model, and {setting.provider} does not take all of its operators",
        "leave --cuda-graph out, or export the model in a precision that the provider takes",
    )


# In the order of which is told, if there are several.
USUAL: tuple[tuple[re.Pattern[str], Callable[[Setting], Reason]], ...] = (
    (re.compile(r"CUDA failure 35\b|driver version is insufficient"), _old_driver),
    (re.compile(r"CUDA failure 100\b|no CUDA-capable device"), _no_device),
    (re.compile(r"CUDA failure 101\b|invalid device ordinal|device id doesn't match any available GPU"), _wrong_device),
    (re.compile(r"CUDA failure 209\b|no kernel image"), _no_kernels),
    (re.compile(r"CUDA failure 46\b|devices? \S+ busy or unavailable"), _busy),
    (
        re.compile(
            r"CUDA failure 2\b|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|[Oo]ut of memory"
            r"|Failed to allocate memory|BFCArena|Available memory of"
        ),
        _no_memory,
    ),
    (re.compile(r"graph capture feature .*have not been partitioned"), _no_graph),
)
