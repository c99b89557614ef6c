"""The engines in a browser, one for each format: their files, and what they are known not to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.engine_errors import Reason
from vit_deploy.core.quantities import megabytes
from vit_deploy.errors import EngineError

WASM, WEBGPU = "wasm", "webgpu"
MOST_BYTES = 2**32  # that WebAssembly can address, the engines' own and copies included


@dataclass(frozen=True)
class WebEngine:
    """An engine.

    Args:
        title: its name in sentences.
        packages: the npm packages that it is in, its own first.
        scripts: the script that is loaded of the first one, by provider.
        impossible: `(artifact, provider) -> Reason | None`, why a file cannot work in it.
        halves_need_f16: whether fp16 files need shaders with halves.
    """

    title: str
    packages: tuple[str, ...]
    scripts: Mapping[str, str]
    impossible: Callable[[Artifact, str], Reason | None]
    halves_need_f16: bool


def _too_large(artifact: Artifact) -> Reason | None:
    if artifact.model_bytes < MOST_BYTES:
        return None
    words = f"it has {megabytes(artifact.model_bytes)} with its weights, and WebAssembly has a memory of 4295 MB"
    return Reason(words, "export the model in fp16 or int8, or a smaller one")


def _not_in_onnx_runtime(artifact: Artifact, provider: str) -> Reason | None:
    if artifact.precision == "bf16":
        return Reason("ONNX Runtime Web has no kernels for bfloat16", "export the model in fp32 or fp16")
    return None


def _not_in_litert(artifact: Artifact, provider: str) -> Reason | None:
    if artifact.precision == "int8-full" or "int8" in (artifact.input.dtype, artifact.output.dtype):
        fix = "export int8 or int8-static, which keep floats at their ends"
        return Reason("LiteRT.js takes no 8-bit integers as input or output", fix)
    if artifact.input.batch is None:
        return Reason("LiteRT.js runs a file with the batch that it is laid out for alone", "give it a fixed batch")
    if provider == WEBGPU and artifact.precision == "int4":
        return Reason("LiteRT.js runs out of its memory while it opens 4-bit weights", "add --provider wasm")
    if provider == WEBGPU and artifact.precision == "int16x8":
        return Reason("LiteRT.js has no kernels for 16-bit integers there", "add --provider wasm")
    return None


ENGINES: Mapping[str, WebEngine] = {
    # What `import "onnxruntime-web"` gives has other kernels for WebGPU (JSEP), whose answers to int8 and fp16 files
    # are wrong (https://github.com/microsoft/onnxruntime/issues/32578): that build is never loaded.
    "onnx": WebEngine(
        "ONNX Runtime Web",
        ("onnxruntime-web",),
        {WASM: "dist/ort.wasm.bundle.min.mjs", WEBGPU: "dist/ort.webgpu.bundle.min.mjs"},
        _not_in_onnx_runtime,
        halves_need_f16=True,
    ),
    "tflite": WebEngine(
        "LiteRT.js",
        ("@litertjs/core", "@litertjs/wasm-utils"),
        {WASM: "dist/index.js", WEBGPU: "dist/index.js"},
        _not_in_litert,
        halves_need_f16=False,
    ),
}


def refuse_impossible(artifact: Artifact, provider: str) -> None:
    """Raise `EngineError` of a file that the engine is known to refuse, or to crash on.

    Args:
        artifact: that is to run.
        provider: `wasm` or `webgpu`.
    """
    engine = ENGINES[artifact.format]
    if provider not in engine.scripts:
        raise EngineError(f"a browser has no provider {provider!r}", fix=f"choose {' or '.join(engine.scripts)}")
    reason = _too_large(artifact) or engine.impossible(artifact, provider)
    if reason is not None:
        raise EngineError(
            f"{artifact.model_path} does not run in a browser on {provider}: {reason.words}", fix=reason.fix
        )


def refuse_halves(artifact: Artifact, provider: str, *, has_f16: bool, adapter: str) -> None:
    """Raise `EngineError` of an fp16 file where shaders have no halves: not every build refuses it by itself.

    Args:
        artifact: that is to run.
        provider: `wasm` or `webgpu`.
        has_f16: whether the adapter has `shader-f16`.
        adapter: its name.
    """
    halves = artifact.precision == "fp16" or artifact.input.dtype == "float16"
    if provider == WEBGPU and halves and not has_f16 and ENGINES[artifact.format].halves_need_f16:
        raise EngineError(
            f"{artifact.model_path} does not run on {adapter}: its shaders have no halves (shader-f16)",
            fix="add --provider wasm, or export the model in fp32 or int8",
        )
