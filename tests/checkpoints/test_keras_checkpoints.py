from __future__ import annotations

import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import TINY, trained, vit

from tests.checkpoints.archives import members, with_text, zipped
from vit_deploy import checkpoints
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.errors import CheckpointError
from vit_deploy.model.vit import ViT

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "named like a layer": {"name": "head"},
    **{kind: {"normalization_type": kind} for kind in ("rms_norm", "dynamic_tanh", "band_rms")},
    "post swiglu": {"normalization_position": "post", "ffn_type": "swiglu"},
    "geglu max": {"ffn_type": "geglu", "pooling": "max"},
    "no head": {"include_top": False},
    "no head, mean": {"include_top": False, "pooling": "mean"},
    "activation and epsilon": {"activation": "quick_gelu", "epsilon": 1e-3},
    "no bias, gray": {"attention_args": {"qkv_bias": False}, "input_shape": (8, 12, 1)},
    "dropout": {
        "dropout_rate": 0.1,
        "attention_dropout_rate": 0.1,
        "pos_dropout_rate": 0.2,
        "stochastic_depth_rate": 0.1,
    },
    "scale": {"scale": "pico", "embed_dim": None, "num_heads": None, "num_layers": 2, "mlp_dim": None},
    "mixed": {"dtype": "mixed_float16"},
    "half": {"dtype": "float16"},
    "bfloat16": {"dtype": "bfloat16"},
    "made": {"kernel_initializer": "he_normal", "kernel_regularizer": "l2", "seed": None, "trainable": False},
    "travelling": {
        "preprocess": Preprocess((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (20, 30), True, "bicubic"),
        "labels": ["a", "ä", "c", "d", "e"],
        "provenance": [{"action": "random", "seed": 5}, {"action": "resize", "image_size": [8, 12]}],
    },
}


def assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    assert found.config == expected.config
    assert found.digest() == expected.digest()
    assert found.preprocess == expected.preprocess
    assert found.labels == expected.labels
    assert found.provenance == expected.provenance


@pytest.mark.parametrize("name", OPTIONS)
def test_a_keras_file_is_read_without_keras_as_the_model_that_was_saved(tmp_path: Path, name: str) -> None:
    model = vit(**OPTIONS[name])
    model.save(tmp_path / "a.keras")
    found = checkpoints.load(tmp_path / "a.keras")
    assert_same(found, model.to_checkpoint())
    assert {weight.dtype for weight in found.weights.values()} == {np.dtype(np.float32)}


def test_more_than_ten_blocks_keep_their_order(tmp_path: Path) -> None:
    model = vit(num_layers=12)
    model.save(tmp_path / "a.keras")
    assert_same(checkpoints.load(tmp_path / "a.keras"), model.to_checkpoint())


def test_optimizer_and_metrics_of_a_trained_model_are_left_aside(tmp_path: Path) -> None:
    model = trained(vit(dropout_rate=0.2))
    model.save(tmp_path / "a.keras")
    assert_same(checkpoints.load(tmp_path / "a.keras"), model.to_checkpoint())


def test_a_zip_that_was_packed_again_with_compression_is_read_as_well(tmp_path: Path) -> None:
    model = vit()
    model.save(tmp_path / "a.keras")
    packed = zipped(members((tmp_path / "a.keras").read_bytes()), zipfile.ZIP_DEFLATED)
    (tmp_path / "b.keras").write_bytes(packed)
    assert_same(checkpoints.load(tmp_path / "b.keras"), model.to_checkpoint())


def test_weights_alone_are_read_with_a_config(tmp_path: Path) -> None:
    model = trained(vit(normalization_type="dynamic_tanh"))
    model.save_weights(tmp_path / "a.weights.h5")
    found = checkpoints.load(tmp_path / "a.weights.h5", config=model.config)
    assert found.digest() == model.to_checkpoint().digest()
    assert found.preprocess == Preprocess.for_channels(3)


def test_weights_alone_ask_for_a_config(tmp_path: Path) -> None:
    vit().save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(
        CheckpointError, match=r"a\.weights\.h5: it holds weights and no config\n  fix: .*--config FILE"
    ):
        checkpoints.load(tmp_path / "a.weights.h5")


def test_everything_that_a_config_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    model = vit(num_layers=2)
    model.save_weights(tmp_path / "a.weights.h5")
    wrong = model.config.replace(num_layers=3, num_classes=7, ffn_type="glu")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(tmp_path / "a.weights.h5", config=wrong)
    message = str(caught.value)
    for line in (
        "a.weights.h5: the weights do not fit the config",
        "missing block_2.norm1.scale (12,)",
        "missing block_0.ffn.gate.kernel (12, 20)",
        "and ",
    ):
        assert line in message
    narrow = model.config.replace(num_layers=1, num_classes=7)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(tmp_path / "a.weights.h5", config=narrow)
    assert "unexpected block_1.attention.query.kernel (12, 12)" in str(caught.value)


def test_a_config_other_than_the_files_own_is_refused(tmp_path: Path) -> None:
    model = vit()
    model.save(tmp_path / "a.keras")
    assert_same(checkpoints.load(tmp_path / "a.keras", config=model.config), model.to_checkpoint())
    with pytest.raises(CheckpointError, match=r"other than the one given: epsilon is 1e-06, not 0\.5\n  fix: leave"):
        checkpoints.load(tmp_path / "a.keras", config=model.config.replace(epsilon=0.5))


def test_loading_imports_neither_keras_nor_tensorflow(tmp_path: Path) -> None:
    vit().save(tmp_path / "a.keras")
    code = (
        "import sys; from vit_deploy import checkpoints\n"
        "assert 'h5py' not in sys.modules\n"
        f"print(checkpoints.load({str(tmp_path / 'a.keras')!r}).digest())\n"
        "assert not {'keras', 'tensorflow', 'torch', 'jax'} & set(sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == checkpoints.load(tmp_path / "a.keras").digest()


def test_loading_takes_little_more_memory_than_the_weights(tmp_path: Path) -> None:
    config = ViTConfig(image_size=(32, 48), embed_dim=256, num_heads=4, num_layers=4, mlp_dim=1024, num_classes=10)
    expected = Checkpoint.random(config, seed=0)
    peaks = {}
    for suffix in (".keras", ".safetensors"):
        checkpoints.save(expected, tmp_path / f"a{suffix}")
        tracemalloc.start()
        found = checkpoints.load(tmp_path / f"a{suffix}")
        peaks[suffix] = tracemalloc.get_traced_memory()[1] / expected.num_bytes
        tracemalloc.stop()
        assert found.digest() == expected.digest()
    assert 1 < peaks[".keras"] < 1.3
    assert 1 < peaks[".safetensors"] < 1.3


def test_an_option_that_this_version_does_not_know_is_named(tmp_path: Path) -> None:
    class Newer(ViT):
        def get_config(self) -> dict[str, Any]:
            return super().get_config() | {"windows": True}

    Newer.__name__ = "ViT"
    model = Newer(**TINY)
    model.save(tmp_path / "a.keras")
    data = with_text(
        (tmp_path / "a.keras").read_bytes(), b'"registered_name": "ViT"', b'"registered_name": "vit_deploy>ViT"'
    )
    (tmp_path / "a.keras").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"options that this version does not know: windows\n  fix: update"):
        checkpoints.load(tmp_path / "a.keras")
