"""What lies in an ONNX file and beside it: weights by name, essentials, pages, the same bytes again, bounded memory."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.exporters.onnx_files import run, write
from tests.exporters.variants import exported, pixels, trained
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx.export import OnnxExporter

EXPORT = """
import sys
from pathlib import Path

from tests.exporters.variants import exported, trained
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx.export import OnnxExporter

if len(sys.argv) > 2:
    exported(OnnxExporter(), trained(pooling="mean"), Path(sys.argv[1]), ExportOptions())
exported(OnnxExporter(), trained(), Path(sys.argv[1]), ExportOptions())
"""

HUGE = """
import resource
import sys
from pathlib import Path

from vit_deploy.core.artifact import describe
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx.export import OnnxExporter

checkpoint = Checkpoint.random(ViTConfig.from_scale("huge", patch_size=14), 0)
options = ExportOptions()
spec = options.input_spec(checkpoint.config)
artifact = describe(checkpoint, Path(sys.argv[1]), format="onnx", precision="fp32", input=spec)
OnnxExporter().write(checkpoint, artifact, options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, checkpoint.num_bytes)
"""

PARTS = ("kernel", "bias")


def test_layer_scales_are_in_the_projections_before_them_and_the_file_says_what_it_was_made_from(tmp_path):
    checkpoint = trained(layer_scale=True)
    artifact = exported(OnnxExporter(), checkpoint, tmp_path, ExportOptions())

    model = onnx.load(str(artifact.model_path))
    stored = {initializer.name: onnx.numpy_helper.to_array(initializer) for initializer in model.graph.initializer}
    scaled = {f"block_{i}.{each}.{part}" for i in (0, 1) for each in ("attention.out", "ffn.down") for part in PARTS}
    for name, weight in checkpoint.weights.items():
        if name in scaled:
            gamma = checkpoint.weights[f"{name[:8]}scale{1 if 'attention' in name else 2}.gamma"]
            np.testing.assert_allclose(stored[name], weight.astype(np.float64) * gamma, rtol=1e-7)
        elif "gamma" in name:
            assert name not in stored
        else:
            np.testing.assert_array_equal(stored[name], weight, strict=True)
    recorded = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(recorded["vit_deploy.config"])["layer_scale"] is True
    assert json.loads(recorded["vit_deploy.weights_digest"]) == checkpoint.digest()


@pytest.mark.parametrize("norm", ["layer_norm", "dynamic_tanh", "band_rms"])
def test_initializers_are_the_weights_under_their_canonical_names_even_equal_ones(norm, tmp_path):
    checkpoint = trained(normalization_type=norm)
    equal = {name: np.zeros_like(weight) for name, weight in checkpoint.weights.items()}
    for weights in (checkpoint.weights, equal):
        artifact = exported(OnnxExporter(), dataclasses.replace(checkpoint, weights=weights), tmp_path, ExportOptions())
        model = onnx.load(str(artifact.model_path))
        stored = {initializer.name: onnx.numpy_helper.to_array(initializer) for initializer in model.graph.initializer}

        used = {name for node in model.graph.node for name in node.input}
        for name, weight in weights.items():
            assert name in used
            np.testing.assert_array_equal(stored[name], weight, strict=True)
        assert all(array.size <= 4 for name, array in stored.items() if name not in weights)


def test_the_essentials_and_the_producer_are_inside(tmp_path):
    checkpoint = trained()
    artifact = exported(OnnxExporter(), checkpoint, tmp_path, ExportOptions())

    model = onnx.load(str(artifact.model_path))

    assert {entry.key: entry.value for entry in model.metadata_props} == artifact.essentials()
    assert json.loads(artifact.essentials()["vit_deploy.input"])["name"] == "images"
    assert model.producer_name == "vit-deploy"


def test_nodes_are_named_after_the_parts_of_the_model(tmp_path):
    _, _, model = write(tmp_path)

    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {"patch_embed.Conv", "class_token.Expand", "pos_embed.Add", "norm.LayerNormalization", "head.Gemm"} < {
        *names
    }
    assert {"block_1.norm2.LayerNormalization", "block_0.attention.query.Gemm", "block_1.ffn.Gelu"} < {*names}


def test_large_weights_lie_beside_the_model_on_whole_pages(tmp_path):
    checkpoint = trained()
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))
    inside = exported(OnnxExporter(), checkpoint, tmp_path, ExportOptions()).model_path
    expected = run(inside, images)
    assert not inside.with_name("model.onnx.data").exists()

    path = exported(OnnxExporter(external_limit=checkpoint.num_bytes), checkpoint, tmp_path, ExportOptions()).model_path

    plain = onnx.load(str(path), load_external_data=False)
    kept = {
        initializer.name: initializer
        for initializer in plain.graph.initializer
        if initializer.name in checkpoint.weights
    }
    assert set(kept) == set(checkpoint.weights)
    for value in kept.values():
        entries = {entry.key: entry.value for entry in value.external_data}
        assert entries["location"] == "model.onnx.data"
        assert int(entries["offset"]) % 4096 == 0
    assert path.stat().st_size < path.with_name("model.onnx.data").stat().st_size
    np.testing.assert_array_equal(run(path, images), expected)
    loaded = {
        initializer.name: onnx.numpy_helper.to_array(initializer)
        for initializer in onnx.load(str(path)).graph.initializer
    }
    for name, weight in checkpoint.weights.items():
        np.testing.assert_array_equal(loaded[name], weight, strict=True)


def test_weights_just_below_the_limit_stay_inside(tmp_path):
    checkpoint = trained()
    exporter = OnnxExporter(external_limit=checkpoint.num_bytes + 1)

    exported(exporter, checkpoint, tmp_path, ExportOptions())

    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_whatever_they_wrote_before(tmp_path):
    files = []
    for name, arguments in (("one", []), ("two", ["and another before"])):
        folder = tmp_path / name
        folder.mkdir()
        command = [sys.executable, "-c", EXPORT, str(folder), *arguments]
        done = subprocess.run(command, check=True, cwd=Path(__file__).parents[2], capture_output=True, text=True)
        assert done.stdout == ""
        files.append((folder / "model.onnx").read_bytes())

    assert files[0] == files[1]


@pytest.mark.slow
def test_huge_takes_at_most_four_times_the_memory_of_its_weights(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HUGE, str(tmp_path)], check=True, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )

    peak, weights = map(int, done.stdout.split())
    assert peak <= 4 * weights
    assert (tmp_path / "model.onnx.data").stat().st_size >= weights
