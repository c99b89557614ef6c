"""A device has no TensorFlow: what runs there must not import it, nor anything else that it does not need."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import vit_deploy

ROOT = Path(vit_deploy.__file__).parent
ENGINES = {
    "tensorflow",
    "keras",
    "tf_keras",
    "tf2onnx",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "onnxruntime",
    "onnxruntime_qnn",
    "ai_edge_litert",
    "litert_quantizer",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "tensorflow_model_optimization",
    "torch",
    "jax",
    "timm",
    "transformers",
    "h5py",
    "PIL",
    "flatbuffers",
    "vl_convert",
    "huggingface_hub",
    "pyarrow",
    "ray",
    "tokenizers",
    "sentencepiece",
    "ftfy",
    "tflite_micro",
}
ONNX, TENSORFLOW, FLATBUFFERS = {"onnx"}, {"tensorflow", "keras"}, {"flatbuffers"}
# Every module that imports an engine when it is imported, with the one that it is there for. All others import none.
LEAVES = {
    "checkpoints.containers.h5": {"h5py"},
    "checkpoints.containers.keras_zip": {"h5py"},
    **{f"checkpoints.hub.{name}": {"huggingface_hub"} for name in ("client", "fetch", "parts", "refusals", "upload")},
    "checkpoints.keras.model": {"keras"},
    "checkpoints.keras.writer": {"keras"},
    **{
        f"model.{name}": {"keras"}
        for name in (
            *("attention", "block", "checks", "factory", "feed_forward", "layers", "map_pooling", "norms", "options"),
            *("passes", "relative", "rotary", "saving", "vit"),
        )
    },
    "text.byte_pairs": {"tokenizers"},
    "text.sentence_pieces": {"sentencepiece"},
    "text.repaired": {"ftfy"},
    "runtimes.keras.runtime": {"keras"},
    "runtimes.litert": {"ai_edge_litert"},
    "runtimes.openvino": {"openvino"},
    "runtimes.qnn.runtime": {"onnxruntime", "onnxruntime_qnn"},
    **{
        f"runtimes.ort.{name}": {"onnxruntime"}
        for name in ("device_sessions", "errors", "gpus", "graph", "runtime", "sessions")
    },
    "runtimes.simulators.onnx_arm_fp16": ONNX,
    "runtimes.simulators.onnx_no_vnni": ONNX,
    "runtimes.simulators.onnx_session": ONNX,
    "runtimes.tflm": {"tflite_micro"},
    "runtimes.tensorflow.runtime": {"tensorflow"},
    "verification.locate.onnx": {"onnxruntime"},
    "verification.locate.qnn": {"onnxruntime", "onnxruntime_qnn"},
    "verification.locate.savedmodel": {"tensorflow"},
    "verification.locate.tflite": {"ai_edge_litert"},
    "performance.profilers.litert": {"ai_edge_litert"},
    "performance.profilers.openvino": {"openvino"},
    "performance.profilers.ort": {"onnxruntime"},
    "performance.report.drawn": {"vl_convert"},
    "exporters.failures": {"tensorflow"},
    "exporters.open_tracing": {"tensorflow"},
    "exporters.tracing": TENSORFLOW,
    **{
        f"exporters.onnx.{name}": ONNX | {"onnx_ir"}
        for name in ("arithmetic", "class_token", "constants", "cuda", "open_sizes", "rows", "tidy")
    },
    "exporters.onnx.rules": ONNX | {"onnx_ir", "onnxscript"},
    "exporters.onnx.trace": ONNX | {"onnx_ir", "tf2onnx", "tensorflow"},
    "exporters.onnx.export": ONNX | {"onnx_ir", "onnxscript", "tf2onnx", "tensorflow"},
    **{
        f"exporters.onnx.{name}": ONNX | {"onnxruntime"}
        for name in ("even_norms", "graph_values", "int4_blocks", "whole_graph")
    },
    **{
        f"exporters.onnx.{name}": ONNX
        for name in ("bfloat16", "file", "fused_attention", "int8_pairs", "layers", "write")
    },
    **{
        f"exporters.onnx.{name}": ONNX | {"onnxruntime"}
        for name in ("dynamic", "float16", "half_guard", "inside", "layer_inputs", "quantize", "static")
    },
    "exporters.savedmodel.export": TENSORFLOW,
    "exporters.savedmodel.function_names": {"tensorflow"},
    **{f"exporters.tflite.{name}": FLATBUFFERS for name in ("bias_correction", "layer_weights", "metadata", "repack")},
    "exporters.tflite.export": TENSORFLOW | FLATBUFFERS | {"ai_edge_litert"},
    "exporters.tflite.gelu_tables": FLATBUFFERS | {"ai_edge_litert"},
    "exporters.tflite.join": FLATBUFFERS | {"ai_edge_litert"},
    "exporters.tflite.mean_axes": FLATBUFFERS,
    "exporters.tflite.pixels": TENSORFLOW,
    "exporters.tflite.instructions": {"litert_quantizer"},
    "exporters.tflite.quantize": FLATBUFFERS | {"ai_edge_litert", "litert_quantizer"},
    **{f"exporters.tflite.{name}": {"ai_edge_litert"} for name in ("block_rounding", "coarse", "ranges", "widening")},
    **{f"data.parquet_{name}": {"pyarrow"} for name in ("output", "source")},
    **{f"data.{name}": {"pyarrow"} for name in ("remote_source", "storage", "storage_errors")},
    "data.cluster": {"ray"},
    "compression.augment": TENSORFLOW,
    **{f"compression.{name}": {"tensorflow_model_optimization", "tf_keras"} for name in ("cluster", "prune", "qat")},
    **{f"compression.{name}": {"tf_keras"} for name in ("importance", "keras2", "shrink", "shrinking", "training")},
}
# Engines that bring others along.
LOADED_WITH = {
    "onnx_ir": {"onnx"},
    "ray": {"pyarrow"},
    "tensorflow": {"keras", "h5py", "PIL", "flatbuffers", "jax"},
    "keras": {"tensorflow", "h5py", "PIL", "flatbuffers", "jax"},
    "tf_keras": {"tensorflow", "keras", "h5py", "PIL", "flatbuffers", "jax"},
}
DEVICE_LEAVES = sorted(
    name
    for name in LEAVES
    if name.startswith(("runtimes.ort.", "runtimes.litert", "runtimes.openvino")) or name == "verification.locate.onnx"
)


def modules():
    names = [path.relative_to(ROOT.parent).with_suffix("").parts for path in sorted(ROOT.rglob("*.py"))]
    return [".".join(parts).removesuffix(".__init__") for parts in names]


def imported_by(names):
    """Engines that each of `names` imports first, when they are imported one after the other in one process."""
    program = """
import importlib, json, sys
found, seen = {}, set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(name)
    found[name] = sorted({each.partition(".")[0] for each in set(sys.modules) - seen})
    seen = set(sys.modules)
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name: set(found) for name, found in json.loads(done.stdout).items()}


def test_every_leaf_is_there():
    assert {f"vit_deploy.{name}" for name in LEAVES} <= set(modules())


def test_only_leaves_import_an_engine():
    names = [name for name in modules() if name.removeprefix("vit_deploy.") not in LEAVES]
    assert len(names) > 200
    offenders = {name: found & ENGINES for name, found in imported_by(names).items() if found & ENGINES}
    assert not offenders


@pytest.mark.slow
@pytest.mark.parametrize("leaf", DEVICE_LEAVES)
def test_a_devices_leaf_imports_its_own_engine_alone(leaf):
    pytest.importorskip(next(iter(LEAVES[leaf])))
    name = f"vit_deploy.{leaf}"
    assert imported_by([name])[name] & ENGINES == LEAVES[leaf]


@pytest.mark.slow
def test_every_leaf_imports_the_engine_that_it_is_there_for():
    """By its text, so that what is not installed here counts too: a leaf that needs none is none."""
    for leaf, engines in LEAVES.items():
        reached = {name.partition(".")[0] for name in reached_from(f"vit_deploy.{leaf}")} & ENGINES
        brought = set().union(*(LOADED_WITH.get(name, set()) for name in engines))
        assert engines <= reached | brought and reached <= engines | brought, leaf


def reached_from(name, seen=None):
    """Modules that `name` imports at its top, directly and through modules of ours."""
    seen = set() if seen is None else seen
    if name in seen or not name.startswith("vit_deploy"):
        return {name}
    seen.add(name)
    path = ROOT.parent.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.is_file():
        return set()
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            targets = [called.name for called in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            targets = [node.module, *(f"{node.module}.{called.name}" for called in node.names)]
        else:
            continue
        for target in targets:
            found |= reached_from(target, seen)
    return found


def test_asking_for_help_imports_no_engine_nor_numpy():
    program = """
import sys
sys.argv = ["vit-deploy", "--help"]
from vit_deploy.cli import main
try:
    main()
finally:
    print("IMPORTED", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    imported = done.stderr.rpartition("IMPORTED")[2].split()
    assert "vit_deploy" in imported, done.stderr
    assert not set(imported) & (ENGINES | {"numpy"})
    assert "export" in done.stdout
