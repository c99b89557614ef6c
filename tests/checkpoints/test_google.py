from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_vit as plain
import ml_dtypes
import numpy as np
import pytest

from vit_deploy import checkpoints
from vit_deploy.core import reference
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, Pooling
from vit_deploy.errors import CheckpointError

SIZE = {"image_size": list(plain.IMAGE_SIZE)}  # 24 patches make no square, so that the file cannot say it
GOLDEN = Path(__file__).parents[1] / "peers" / "golden" / "google"


def written(path: Path, params: Mapping[str, Any], prefix: str = "", **others: Any) -> Path:
    np.savez(path, **{prefix + name: value for name, value in params.items()}, **others)
    return path


def loaded(path: Path, config: Mapping[str, Any] = SIZE) -> Checkpoint:
    return checkpoints.load(path, config=config)


def assert_same(checkpoint: Checkpoint, expected: plain.Array, tolerance: float = 1e-12) -> None:
    found = reference.forward(checkpoint, plain.draw_images())
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("name", plain.VARIANTS)
def test_a_file_of_googles_layout_gives_what_the_plain_definition_gives(tmp_path: Path, name: str) -> None:
    variant = plain.VARIANTS[name]
    params = plain.draw(variant)
    checkpoint = loaded(written(tmp_path / "a.npz", params))
    assert_same(checkpoint, plain.forward(params, plain.draw_images(), variant))


@pytest.mark.parametrize("name", ["imagenet21k", "attention pooling"])
def test_blocks_stacked_along_the_depth_are_taken_apart(tmp_path: Path, name: str) -> None:
    variant = plain.VARIANTS[name]
    params = plain.draw(variant)
    checkpoint = loaded(written(tmp_path / "a.npz", plain.stacked(params)))
    assert checkpoint.config.num_layers == plain.DEPTH
    assert_same(checkpoint, plain.forward(params, plain.draw_images(), variant))


def test_more_layers_than_tensors_are_no_contradiction_when_they_are_stacked(tmp_path: Path) -> None:
    params = plain.stacked(plain.draw(plain.VARIANTS["big_vision average"]))
    deep = {name: np.repeat(value, 40, axis=0) if "encoderblock" in name else value for name, value in params.items()}
    assert loaded(written(tmp_path / "a.npz", deep)).config.num_layers == 40 * plain.DEPTH


BESIDE = {
    "opt/target/": ["opt/state/step", "opt/state/param_states/Transformer/encoderblock_0/LayerNorm_0/scale/grad_ema"],
    "params/": ["opt/0/mu/Transformer/encoderblock_0/LayerNorm_0/scale", "opt/count", "chrono/accum_train_time"],
    "params/img/": [
        "params/txt/Encoder_0/encoderblock_0/LayerNorm_0/scale",
        "params/t",
        "params/b",
        "params/txt/head/bias",
    ],
    "img/": ["txt/Embed_0/embedding", "t", "b"],
}


@pytest.mark.parametrize("prefix", BESIDE)
def test_what_lies_beside_the_model_is_left_out(tmp_path: Path, prefix: str) -> None:
    variant = plain.VARIANTS["attention pooling"]
    params = plain.draw(variant)
    others = {name: np.ones(3, np.float32) for name in BESIDE[prefix]}
    checkpoint = loaded(written(tmp_path / "a.npz", params, prefix, **others))
    assert_same(checkpoint, plain.forward(params, plain.draw_images(), variant))


def test_what_lies_in_the_model_and_belongs_to_no_part_is_not_left_out(tmp_path: Path) -> None:
    params = plain.draw(plain.VARIANTS["big_vision"]) | {"conv_root/kernel": np.ones((7, 7, 3, 8), np.float32)}
    with pytest.raises(CheckpointError, match=r"unexpected params/conv_root/kernel \(7, 7, 3, 8\)"):
        loaded(written(tmp_path / "a.npz", params, "params/"))


def test_bfloat16_that_numpy_stored_as_two_opaque_bytes_is_widened(tmp_path: Path) -> None:
    variant = plain.VARIANTS["SigLIP"]
    halved = {name: value.astype(ml_dtypes.bfloat16) for name, value in plain.draw(variant).items()}
    path = written(tmp_path / "a.npz", halved, "params/img/")
    with np.load(path) as file:
        assert file["params/img/embedding/bias"].dtype == np.dtype("V2")
    expected = plain.forward(
        {name: value.astype(np.float32) for name, value in halved.items()}, plain.draw_images(), variant
    )
    assert_same(loaded(path), expected)


def test_a_deflated_file_with_numbers_in_other_orders_is_the_same(tmp_path: Path) -> None:
    variant = plain.VARIANTS["imagenet21k"]
    params = plain.draw(variant)
    turned = {name: np.asfortranarray(value).astype(">f8") for name, value in params.items()}
    np.savez_compressed(tmp_path / "a.npz", **turned)
    assert loaded(tmp_path / "a.npz").digest() == loaded(written(tmp_path / "b.npz", params)).digest()


def test_a_table_of_one_row_more_than_a_square_holds_the_class_tokens_position(tmp_path: Path) -> None:
    params = plain.draw(plain.VARIANTS["big_vision"])
    params["pos_embedding"] = np.arange(10 * plain.DIM, dtype=np.float32).reshape(1, 10, plain.DIM)
    checkpoint = loaded(written(tmp_path / "a.npz", params), {})
    assert checkpoint.config.grid == (3, 3)
    assert np.array_equal(checkpoint.weights["pos_embed.table"], params["pos_embedding"][0])


def test_attention_pooling_that_an_early_program_kept_at_the_top_is_found(tmp_path: Path) -> None:
    variant = plain.VARIANTS["attention pooling"]
    params = plain.draw(variant)
    inlined = {name.removeprefix("MAPHead_0/"): value for name, value in params.items()}
    assert_same(loaded(written(tmp_path / "a.npz", inlined)), plain.forward(params, plain.draw_images(), variant))


def test_fixed_sines_stand_for_a_missing_table_only_where_the_image_size_is_stated(tmp_path: Path) -> None:
    variant = plain.VARIANTS["big_vision average"]
    params = plain.draw(variant)
    table = np.zeros((*plain.GRID, plain.DIM))
    for row, column in np.ndindex(*plain.GRID):
        for index in range(plain.DIM // 4):
            speed = 10_000.0 ** (-index / (plain.DIM // 4 - 1))
            angles = (column * speed, column * speed + np.pi / 2, row * speed, row * speed + np.pi / 2)
            table[row, column, index :: plain.DIM // 4] = np.sin(angles)
    params["pos_embedding"] = table.reshape(1, -1, plain.DIM).astype(np.float32)
    expected = plain.forward(params, plain.draw_images(), variant)
    del params["pos_embedding"]
    path = written(tmp_path / "a.npz", params)
    assert_same(loaded(path), expected, 1e-6)
    assert "positions sincos2d" in checkpoints.assumptions(loaded(path))
    with pytest.raises(CheckpointError, match=r"missing pos_embed.table"):
        loaded(path, {})


def test_what_the_file_cannot_say_is_assumed_as_flax_has_it_and_can_be_stated(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz", plain.draw(plain.VARIANTS["vision_transformer"]))
    checkpoint = loaded(path)
    assert checkpoint.config.activation is Activation.GELU_TANH
    assert checkpoint.config.epsilon == 1e-6
    assert checkpoint.preprocess.mean == checkpoint.preprocess.std == (0.5, 0.5, 0.5)
    assert "assumed" in checkpoints.assumptions(checkpoint)
    for part in ("activation gelu_tanh", "epsilon 1e-06", "pooling cls"):
        assert part in checkpoints.assumptions(checkpoint)
    assert checkpoint.provenance[-1].facts["family"] == "google"
    stated = loaded(path, {**SIZE, "activation": "gelu", "epsilon": 1e-5, "pooling": "mean"})
    assert (stated.config.activation, stated.config.epsilon) == (Activation.GELU, 1e-5)
    assert stated.config.pooling is Pooling.MEAN
    assert checkpoints.assumptions(stated) == (
        "assumed, for the checkpoint does not say it: mean 0.5, std 0.5, resize [24, 32], interpolation "
        "bilinear (say otherwise with --mean, --std and --config with resize and interpolation in its preprocess)"
    )


def test_an_image_size_that_is_not_stated_must_be_that_of_a_square(tmp_path: Path) -> None:
    params = plain.draw(plain.VARIANTS["vision_transformer"])
    with pytest.raises(CheckpointError, match="24 patches, which make no square") as caught:
        loaded(written(tmp_path / "a.npz", params), {})
    assert caught.value.fix.endswith('--config FILE.json with {"image_size": [height, width]}')


def test_all_that_is_wrong_is_listed_at_once(tmp_path: Path) -> None:
    params = plain.draw(plain.VARIANTS["imagenet21k"])
    block = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1"
    params[f"{block}/key/kernel"] = params[f"{block}/key/kernel"].swapaxes(1, 2)
    params["embedding/bias"][3] = np.nan
    params["head/bias"] = params["head/bias"][:4]
    params["head/scale"] = params["head/bias"]
    del params["pre_logits/bias"], params["Transformer/encoderblock_0/LayerNorm_2/scale"]
    with pytest.raises(CheckpointError) as caught:
        loaded(written(tmp_path / "a.npz", params))
    for part in (
        f"block_1.attention.key.kernel cannot be made of {block}/key/kernel (12, 4, 3): expected (12, 3, 4)",
        "missing block_0.norm2.scale (12,)",
        "missing pre_logits.bias (9,)",
        "unexpected head/scale (4,)",
        "head.bias has shape (4,), expected (5,)",
        "patch_embed.bias has 1 value that is NaN or infinite",
    ):
        assert part in caught.value.message


@pytest.mark.parametrize("name", sorted(plain.draw(plain.VARIANTS["imagenet21k"])))
def test_any_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    params = plain.draw(plain.VARIANTS["imagenet21k"])
    del params[name]
    with pytest.raises(CheckpointError) as caught:
        loaded(written(tmp_path / "a.npz", params))
    assert "missing " in caught.value.message or name == "cls", caught.value.message


@pytest.mark.parametrize("stated", [{"num_classes": 7}, {"num_heads": 4}, {"include_top": False}, {"num_layers": 3}])
def test_a_config_that_contradicts_the_weights_is_refused(tmp_path: Path, stated: dict[str, Any]) -> None:
    path = written(tmp_path / "a.npz", plain.draw(plain.VARIANTS["vision_transformer"]))
    [name] = stated
    with pytest.raises(CheckpointError, match=f"{name} is .* by its weights and .* by the config given"):
        loaded(path, {**SIZE, **stated})


def test_encoders_of_unknown_prefixes_are_not_chosen_between(tmp_path: Path) -> None:
    params = plain.draw(plain.VARIANTS["SigLIP"])
    both = {f"{tower}/{name}": value for tower in ("left", "right") for name, value in params.items()}
    with pytest.raises(CheckpointError, match=r"it holds 2 encoders, .*left/, right/"):
        loaded(written(tmp_path / "a.npz", both))
    alone = {f"left/{name}": value for name, value in params.items()}
    assert loaded(written(tmp_path / "b.npz", alone)).config.pooling is Pooling.MAP


def test_a_block_of_a_very_high_number_is_no_reason_to_make_all_those_before_it(tmp_path: Path) -> None:
    params = plain.draw(plain.VARIANTS["SigLIP"])
    params["Transformer/encoderblock_999999/LayerNorm_0/scale"] = np.ones(plain.DIM, np.float32)
    with pytest.raises(CheckpointError, match="its config says 1000000 layers"):
        loaded(written(tmp_path / "a.npz", params))


def test_stacked_and_single_blocks_in_one_file_are_refused(tmp_path: Path) -> None:
    params = plain.draw(plain.VARIANTS["SigLIP"])
    with pytest.raises(CheckpointError, match="both stacked and single"):
        loaded(written(tmp_path / "a.npz", params | plain.stacked(params)))


GOLDENS = {"imagenet21k": "imagenet21k", "big_vision": "big_vision", "siglip": "SigLIP"}


@pytest.mark.parametrize("name", GOLDENS)
def test_a_file_gives_what_flax_gave(name: str) -> None:
    assert_same(loaded(GOLDEN / f"{name}.npz"), np.load(GOLDEN / f"{name}_answers.npy"), 1e-5)


# Of the newest Flax; parts were named otherwise in the programs of these two, which computed the same.
RENAMED = (plain.MHA, plain.BIG_VISION_BEFORE_2022)


@pytest.mark.peers
@pytest.mark.skipif(importlib.util.find_spec("flax") is None, reason="needs flax")
@pytest.mark.slow  # Flax compiles each for seconds
@pytest.mark.parametrize("name", [name for name, variant in plain.VARIANTS.items() if variant.names not in RENAMED])
def test_the_plain_definition_gives_what_flax_gives(name: str) -> None:
    from tests.peers import make_google_golden

    variant = plain.VARIANTS[name]
    params, answers = make_google_golden.answered(variant)
    expected = plain.forward(params, plain.draw_images(), variant)
    assert np.abs(answers - expected).max() <= 1e-5 * np.abs(expected).max()
