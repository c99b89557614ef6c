"""One provider of ONNX Runtime tried on a model of some bytes, as a program for a process of its own.

    python -P ort_trial.py PROVIDER MODEL_IN_HEXADECIMAL INPUT OUTPUT

It prints `ANSWER` and a JSON object: once it knows what was built, and again once it has tried. It imports ONNX
Runtime, NumPy and its neighbour `runtimes.ort.libraries`, so that nothing has to be installed but these.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

TENSORRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
SHORT = {TENSORRT: "tensorrt", CUDA: "cuda"}  # those that have libraries to be loaded
HELPERS = {TENSORRT: [CUDA]}
GIVEN, EXPECTED = 1.5, 3.0  # the model doubles its input


def main(provider: str, model: bytes, given: str, output_name: str) -> None:
    """Print `cuda`, the version that ONNX Runtime was built with, and `problem`, empty where the provider is usable."""
    import onnxruntime as ort

    facts = {"cuda": str(getattr(ort, "cuda_version", "") or "")}
    _answer({**facts, "problem": "its process ended before the end"})
    _answer({**facts, "problem": _tried(ort, provider, model, given, output_name)})


def _answer(values: Mapping[str, str]) -> None:
    print("ANSWER" + json.dumps(values), flush=True)


def _tried(ort: Any, provider: str, model: bytes, given: str, output_name: str) -> str:
    import numpy as np

    if provider in SHORT:
        libraries = _neighbour("libraries")
        print(libraries.load_libraries(ort, SHORT[provider]))
        libraries.register_plugins(ort, CUDA)
    chosen = [provider, *HELPERS.get(provider, ())]
    session = ort.InferenceSession(model, providers=chosen, enable_fallback=False)
    if provider not in (used := session.get_providers()):
        return f"it fell back to {', '.join(used)}"
    (output,) = session.run([output_name], {given: np.array([GIVEN], np.float32)})
    if output.tolist() != [EXPECTED]:
        return f"it answers {output.tolist()} where {[EXPECTED]} is right"
    return ""


def _neighbour(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(sys.argv[1], bytes.fromhex(sys.argv[2]), *sys.argv[3:])
