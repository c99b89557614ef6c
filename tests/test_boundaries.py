"""A device has no TensorFlow: what runs there must not import it, nor anything else that it does not need."""

from __future__ import annotations

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
    "ai_edge_litert",
    "tensorflow_model_optimization",
    "torch",
    "jax",
    "timm",
    "transformers",
    "h5py",
    "PIL",
}
# What the leaves among the device's modules may import.
LEAVES = {
    "vit_deploy.runtimes.ort.runtime": {"onnxruntime"},
    "vit_deploy.runtimes.ort.engines": {"onnxruntime"},
    "vit_deploy.runtimes.ort.errors": {"onnxruntime"},
    "vit_deploy.runtimes.ort.graph": {"onnxruntime"},
    "vit_deploy.runtimes.ort.sessions": {"onnxruntime"},
    "vit_deploy.runtimes.litert": {"ai_edge_litert"},
    "vit_deploy.runtimes.openvino": {"openvino"},
}
WORKSTATION_LEAVES = {"vit_deploy.runtimes.keras.runtime", "vit_deploy.runtimes.tensorflow.runtime"}


def modules(folder):
    names = [path.relative_to(ROOT.parent).with_suffix("").parts for path in sorted((ROOT / folder).glob("*.py"))]
    return [".".join(parts).removesuffix(".__init__") for parts in names]


def packages():
    return [f"vit_deploy.{path.parent.name}" for path in sorted(ROOT.glob("*/__init__.py"))]


def light_modules():
    found = [*modules("."), *packages(), *modules("runtimes"), *modules("cli")]
    return [name for name in dict.fromkeys(found) if name not in LEAVES and name not in WORKSTATION_LEAVES]


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


def test_only_leaves_import_an_engine():
    names = light_modules()
    assert {
        "vit_deploy.core.artifact",
        "vit_deploy.performance.bench",
        "vit_deploy.verification.parity",
        "vit_deploy.runtimes",
    } <= set(names)
    offenders = {name: found & ENGINES for name, found in imported_by(names).items() if found & ENGINES}
    assert not offenders


@pytest.mark.parametrize("leaf", sorted(name for name in LEAVES if name in modules("runtimes")))
def test_a_devices_leaf_imports_its_own_engine_alone(leaf):
    pytest.importorskip(next(iter(LEAVES[leaf])))
    assert imported_by([leaf])[leaf] & (ENGINES | {"openvino"}) == LEAVES[leaf]


@pytest.mark.skipif("vit_deploy.cli" not in packages(), reason="there is no command line yet")
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
