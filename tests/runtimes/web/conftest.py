"""What a browser is to run: an artifact, and npm's files that nobody reads."""

from __future__ import annotations

import json

import pytest

from tests.linear_bundle import write_bundle
from vit_deploy.core.manifest import read_artifact


@pytest.fixture
def packages(tmp_path):
    """A folder with all packages, whose files nobody reads."""
    folder = tmp_path / "node_modules"
    scripts = {
        "onnxruntime-web": ("dist/ort.wasm.bundle.min.mjs", "dist/ort.webgpu.bundle.min.mjs"),
        "@litertjs/core": ("dist/index.js",),
        "@litertjs/wasm-utils": (),
    }
    for name, files in scripts.items():
        (folder / name / "dist").mkdir(parents=True)
        (folder / name / "package.json").write_text(json.dumps({"name": name, "version": "9.8.7", "license": "MIT"}))
        for file in files:
            (folder / name / file).write_text("")
    return folder


@pytest.fixture
def bundle(tmp_path):
    return read_artifact(write_bundle(tmp_path / "bundle"))
