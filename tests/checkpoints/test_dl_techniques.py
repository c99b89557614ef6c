from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dl_techniques_models as stand_in
import numpy as np
import pytest

from tests.checkpoints import archives
from vit_deploy import checkpoints
from vit_deploy.core import reference
from vit_deploy.core.choices import FFNType, NormalizationPosition, Pooling
from vit_deploy.errors import CheckpointError

IMAGES = np.random.default_rng(4).standard_normal((2, 16, 48, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.know_the_smallest_scale(monkeypatch)


def assert_same(path: Path, model: Any) -> None:
    expected = np.asarray(model(IMAGES))
    found = reference.forward(checkpoints.load(path), IMAGES)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.fixture(scope="module")
def model() -> Any:
    return stand_in.vit(dropout_rate=0.1)


@pytest.fixture(scope="module")
def sound(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "a.keras"
    model.save(path)
    return path


def test_the_default_one_which_normalizes_after_its_halves_gives_its_own_logits(sound: Path, model: Any) -> None:
    assert_same(sound, model)
    config = checkpoints.load(sound).config
    assert config.normalization_position is NormalizationPosition.POST
    assert config.num_heads == 3
    assert checkpoints.assumptions(checkpoints.load(sound)) == (
        "assumed, for the checkpoint does not say it: mean 0.5, std 0.5, resize [16, 48], interpolation "
        "bilinear (say otherwise with --mean, --std and --config with resize and interpolation in its preprocess)"
    )


VARIANTS: dict[str, dict[str, Any]] = {
    "pre-norm SwiGLU with layer scale": {
        "normalization_position": "pre",
        "ffn_type": "swiglu",
        "use_layer_scale": True,
        "include_top": False,
        "pooling": "mean",
    },
    "RMS without scale, GeGLU": {
        "normalization_type": "rms_norm",
        "normalization_kwargs": {"use_scale": False, "epsilon": 1e-4},
        "ffn_type": "geglu",
        "include_top": False,
        "pooling": "max",
    },
    "dynamic tanh, GLU with a sigmoid gate": {
        "normalization_type": "dynamic_tanh",
        "ffn_type": "glu",
        "activation": "sigmoid",
        "include_top": False,
    },
    "RMS, ReLU, head with a pooling that it ignores": {
        "normalization_type": "rms_norm",
        "activation": "relu",
        "pooling": "mean",
        "first_version": True,
    },
    "band RMS, pre-norm": {
        "normalization_type": "band_rms",
        "normalization_position": "pre",
        "include_top": False,
        "pooling": "cls",
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_gives_its_own_numbers(tmp_path: Path, name: str) -> None:
    model = stand_in.vit(**VARIANTS[name])
    model.save(tmp_path / "a.keras")
    assert_same(tmp_path / "a.keras", model)


@pytest.mark.slow
def test_a_model_of_its_smallest_scale_gives_its_own_logits(tmp_path: Path) -> None:
    model = stand_in.vit(scale="pico")
    model.save(tmp_path / "a.keras")
    assert_same(tmp_path / "a.keras", model)


def test_a_gated_feed_forward_is_known_by_its_gate(tmp_path: Path) -> None:
    model = stand_in.vit(ffn_type="geglu", activation="silu")
    model.save(tmp_path / "a.keras")
    assert checkpoints.load(tmp_path / "a.keras").config.ffn_type is FFNType.SWIGLU
    assert_same(tmp_path / "a.keras", model)


def changed(
    folder: Path, sound: Path, *, config: dict[str, Any] | None = None, weights: Callable[[Any], None] | None = None
) -> Path:
    """A copy of the sound file with some options or weights changed."""
    data = archives.with_config(sound.read_bytes(), lambda document: document["config"].update(config or {}))
    path = folder / "changed.keras"
    path.write_bytes(data if weights is None else archives.with_weights(data, weights))
    return path


def renamed(file: Any) -> None:
    """As Keras names it when it comes to the attributes before the lists."""
    for old, new in (
        ("layers/patch_embedding2d", "patch_embed"),
        ("layers/positional_embedding", "pos_embed"),
        ("layers/layer_normalization", "norm"),
        ("layers", "transformer_layers"),
    ):
        file.move(old, new)


def test_parts_named_by_attributes_instead_of_classes_are_the_same(tmp_path: Path, sound: Path) -> None:
    other = checkpoints.load(changed(tmp_path, sound, weights=renamed))
    assert other.digest() == checkpoints.load(sound).digest()


CODE = {"class_name": "function", "config": "evil", "module": "os", "registered_name": "function"}
CONFIGS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "several at once": (
        {"rope": True, "activation": CODE, "ffn_type": "differential", "normalization_type": "batch_norm"},
        (
            "the option rope, which is not known",
            "an activation of its own, which is code and is not run",
            "ffn_type differential, not one of mlp",
            "normalization_type batch_norm, not one of layer_norm",
        ),
    ),
    "another gate": ({"ffn_type": "glu", "activation": "relu"}, ("glu with the activation relu",)),
    "a wider band": ({"normalization_kwargs": {"max_band_width": 0.2}}, ("norms with max_band_width 0.2, not 0.1",)),
    "norms of another kind": (
        {"normalization_kwargs": {"axis": 1, "groups": 2}},
        ("norms with axis 1, not -1", "norms with groups, which is not known"),
    ),
    "no scale": ({"scale": "giant"}, ("unknown scale 'giant'",)),
    "values of another kind": ({"input_shape": 3}, ("the config of its ViT is damaged",)),
    "another scale": (
        {"scale": "pico"},
        ("missing block_2.norm1.scale (192,)", "the weights do not fit the config, 103 problems"),
    ),
    "other classes": ({"num_classes": 7}, ("head.kernel has shape (12, 5), expected (12, 7)",)),
    "no head": ({"include_top": False}, ("unexpected head.kernel (12, 5)",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_cannot_be_imported_is_refused_for_all_its_reasons(
    tmp_path: Path, sound: Path, name: str
) -> None:
    config, parts = CONFIGS[name]
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(changed(tmp_path, sound, config=config))
    for part in parts:
        assert part in caught.value.message


def damaged(file: Any) -> None:
    del file["layers/transformer_layer_1/attention/cross_attention/qkv_dense/vars/1"]
    del file["vars/0"]
    file["vars/0"] = np.ones((2, 1, 12), np.float32)
    file["layers/transformer_layer/ffn_layer/fc1/vars/0"][4, 2] = np.nan
    file["lora/vars/0"] = np.ones(3, np.float32)


def test_all_that_is_wrong_with_the_weights_is_listed_at_once(tmp_path: Path, sound: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(changed(tmp_path, sound, weights=damaged))
    for part in (
        "missing block_1.attention.query.bias (12,)",
        "missing block_1.attention.value.bias (12,)",
        "class_token.class cannot be made of vars/0 (2, 1, 12): expected a first axis of 1",
        "block_0.ffn.up.kernel has 1 value that is NaN or infinite",
        "unexpected lora/vars/0 (3,)",
    ):
        assert part in caught.value.message


def test_a_config_stated_otherwise_is_refused(sound: Path) -> None:
    with pytest.raises(CheckpointError, match="num_heads is 3, not 4"):
        checkpoints.load(sound, config={"num_heads": 4})
    assert checkpoints.load(sound, config={"num_heads": 3}).config.effective_pooling is Pooling.CLS


def test_another_model_of_that_package_is_none(tmp_path: Path, sound: Path) -> None:
    (tmp_path / "a.keras").write_bytes(archives.with_text(sound.read_bytes(), b'"ViT"', b'"ViTHMLP"'))
    with pytest.raises(CheckpointError, match="which is not a ViT of vit-deploy"):
        checkpoints.load(tmp_path / "a.keras")
