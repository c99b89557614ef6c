"""Providers of ONNX Runtime that are tried on a model of some bytes: usable, or the reason and the fix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.core.probes import Answer, ask
from vit_deploy.formats.protobuf import written, written_number
from vit_deploy.runtimes.ort.reasons import Setting, cleaned, known_reason

PROGRAM = Path(__file__).with_name("trial.py")
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
NAMES = {"CPUExecutionProvider": "cpu", CUDA: "cuda", TENSORRT: "tensorrt"}
REMOTE = ("AzureExecutionProvider",)  # which asks a service, and executes nothing
GIVEN, WANTED = "x", "y"
RAISED = re.compile(r"^[A-Za-z_][\w.]*: ")  # the kind of an error, before its text
MOST_WORDS = 300  # of a reason that is none of the usual ones


@dataclass(frozen=True)
class Trial:
    """What came of one provider.

    Args:
        provider: its full name.
        usable: whether it opened the model and answered right.
        reason: why not, in words; empty where it is usable.
        fix: what to do about it; empty likewise.
    """

    provider: str
    usable: bool
    reason: str = ""
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))


def try_provider(provider: str) -> Trial:
    """Open a model with a provider and run it, in a process of its own and without falling back to another."""
    answer = ask(str(PROGRAM), provider, doubling().hex(), GIVEN, WANTED)
    if not answer.failure and not answer.value["problem"]:
        return Trial(provider, usable=True)
    return _failed(provider, answer)


def _failed(provider: str, answer: Answer) -> Trial:
    found = answer.value or {}
    name = NAMES.get(provider, provider)
    problem = answer.failure or found["problem"]
    # A traceback's lines of source say nothing of the reason, and are indented.
    said = "\n".join([problem, *(line for line in answer.said.splitlines() if not line.startswith("  "))])
    if (known := known_reason(said, Setting(name, cuda=found.get("cuda", "")))) is not None:
        return Trial(provider, usable=False, reason=known.words, fix=known.fix)
    plain = RAISED.sub("", problem)
    words = next(iter(cleaned(plain).splitlines()), plain)[:MOST_WORDS]
    fix = "install ONNX Runtime again, or run with --provider cpu" if name != "cpu" else "install ONNX Runtime again"
    return Trial(provider, usable=False, reason=words, fix=fix)


def doubling() -> bytes:
    """An ONNX file that adds its input, one float, to itself.

    It is an operator that computes: one that only copies would do on a GPU that the package has no machine code for.
    """
    dimension = written(1, written_number(1, 1))
    tensor = written(1, written_number(1, 1) + written(2, dimension))  # float32, of that shape
    node = written(1, GIVEN.encode()) * 2 + written(2, WANTED.encode()) + written(4, b"Add")
    graph = written(1, node) + written(2, b"doubling")
    graph += written(11, written(1, GIVEN.encode()) + written(2, tensor))
    graph += written(12, written(1, WANTED.encode()) + written(2, tensor))
    opset = written(8, written(1, b"") + written_number(2, 13))
    return written_number(1, 8) + written(7, graph) + opset
