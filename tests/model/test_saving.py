from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vit_deploy
from tests.features import FAMILIES, as_arguments
from vit_deploy.core.choices import FFNType, NormalizationPosition, NormalizationType, Pooling
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.model.vit import ViT

TINY: dict[str, Any] = {
    "input_shape": (8, 12, 3),
    "patch_size": (4, 3),
    "num_classes": 5,
    "embed_dim": 12,
    "num_heads": 3,
    "num_layers": 2,
    "mlp_dim": 20,
}
# Every value of every option, and the ways in which a model can sit in another.
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "named": {"name": "my_backbone", "seed": 3},
    "zeros": {"seed": None},
    **{f"norm-{kind}": {"normalization_type": kind} for kind in ("rms_norm", "dynamic_tanh", "band_rms")},
    **{f"ffn-{kind}": {"ffn_type": kind} for kind in ("swiglu", "geglu", "glu")},
    **{f"pool-{kind}": {"pooling": kind} for kind in ("cls", "mean", "max")},
    **{f"features-{kind}": {"pooling": kind, "include_top": False} for kind in (None, "cls", "mean", "max")},
    **{f"activation-{kind}": {"activation": kind} for kind in ("gelu_tanh", "quick_gelu", "relu", "silu", "hard_silu")},
    "post": {"normalization_position": "post", "normalization_type": "rms_norm", "ffn_type": "swiglu"},
    **{
        name: as_arguments(FAMILIES[name])
        for name in (
            "DINOv2 with registers",
            "post-norm, RMS, probe",
            "band RMS, both tokens",
            "prefix of five, class token",
        )
    },
    "sequence behind registers, mixed": as_arguments(FAMILIES["sequence behind registers"])
    | {"dtype": "mixed_float16"},
    "epsilon": {"epsilon": 1e-3},
    "no-bias": {"attention_args": {"qkv_bias": False, "flash_attention": None}},
    "gray": {"input_shape": (8, 12, 1)},
    "dropout": {
        "dropout_rate": 0.1,
        "attention_dropout_rate": 0.2,
        "pos_dropout_rate": 0.3,
        "stochastic_depth_rate": 0.4,
    },
    "regularized": {
        "kernel_regularizer": keras.regularizers.L1L2(1e-3, 1e-4),
        "bias_regularizer": "l2",
        "kernel_initializer": keras.initializers.HeNormal(seed=4),
        "bias_initializer": "ones",
    },
    "mixed": {"dtype": "mixed_float16"},
    "half": {"dtype": "bfloat16"},
    "frozen": {"trainable": False},
    "travelling": {
        "preprocess": Preprocess((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (20, 30), True, "bicubic"),
        "labels": ["a", "ä", "c", "d", "e"],
        "provenance": [{"action": "random", "seed": 5}, {"action": "resize", "image_size": [8, 12]}],
    },
}


def inside_a_functional_model(vit: ViT) -> Any:
    inputs = keras.Input((8, 12, 3))
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dropout(0.5)(vit(inputs))))


def inside_a_sequence(vit: ViT) -> Any:
    return keras.Sequential([keras.Input((8, 12, 3)), vit, keras.layers.Dense(2)])


def walked(vit: ViT) -> Any:
    inputs = keras.Input((8, 12, 3))
    x = vit.pos_embed(vit.class_token(vit.patch_embed(inputs)))
    outputs = [x := block(x) for block in vit.transformer_layers]
    return keras.Model(inputs, [*outputs, vit.head(vit.norm(x)[:, 0])])


def twins(vit: ViT) -> Any:
    inputs = keras.Input((8, 12, 3))
    other = ViT(**TINY, name="other", seed=8, normalization_type="band_rms")
    return keras.Model(inputs, keras.layers.Add()([vit(inputs), other(inputs)]))


HOUSES = {"functional": inside_a_functional_model, "sequential": inside_a_sequence, "walked": walked, "twins": twins}
# What a process that knows none of it has to find; the other options are loaded in this one.
FRESH = ("default", "post-norm, RMS, probe", "sequence behind registers, mixed", "regularized", "half", "travelling")

LOAD = """
import sys, pathlib
import numpy as np
import vit_deploy
folder = pathlib.Path(sys.argv[1])
ours = {path: vit_deploy.load(path) for path in folder.glob("functional.keras")}
vit_deploy.ViT  # which tells Keras its layers, where nothing was loaded
import keras
for path in sorted(folder.glob("*.keras")):
    model = keras.saving.load_model(path)  # safe mode is the default
    images = np.load(path.with_suffix(".images.npy"))
    outputs = model(images)
    if path in ours:
        np.testing.assert_array_equal(ours[path](images), outputs)
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    arrays = [keras.ops.convert_to_numpy(keras.ops.cast(each, "float32")) for each in outputs]
    np.savez(path.with_suffix(".found.npz"), *arrays)
"""


def scrambled(model: Any) -> Any:
    """The model with weights that no initializer gives."""
    rng = np.random.default_rng(1)
    model.set_weights(
        [value + 0.1 * rng.standard_normal(value.shape).astype(value.dtype) for value in model.get_weights()]
    )
    return model


def images_for(model: Any) -> Any:
    channels = model.config.channels if isinstance(model, ViT) else model.input_shape[-1]
    return np.random.default_rng(0).standard_normal((2, 8, 12, channels)).astype(np.float32)


def answers(model: Any, images: Any) -> list[Any]:
    outputs = model(images)
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [keras.ops.convert_to_numpy(keras.ops.cast(output, "float32")) for output in outputs]


def answers_before_and_after(folder: Path, made: Mapping[str, Any]) -> dict[str, tuple[list[Any], list[Any]]]:
    """By name, the outputs of a model before it was saved and in one new process that loaded all files."""
    expected = {}
    for name, model in made.items():
        expected[name] = answers(scrambled(model), images_for(model))
        model.save(folder / f"{name}.keras")
        np.save(folder / f"{name}.images.npy", images_for(model))
    ran = subprocess.run([sys.executable, "-c", LOAD, str(folder)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Warning" not in ran.stderr, ran.stderr
    found = {}
    for name in expected:
        with np.load(folder / f"{name}.found.npz") as arrays:
            found[name] = [arrays[key] for key in arrays.files]
    return {name: (expected[name], found[name]) for name in expected}


POOLINGS = [None, *(each for each in Pooling if each is not Pooling.CLS_DISTILLATION)]  # that one wants a token more


@pytest.fixture(scope="module")
def models() -> dict[str, ViT]:
    """A model with each of the options; their weights may be changed, and nothing else."""
    return {name: scrambled(ViT(**TINY | options)) for name, options in OPTIONS.items()}


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Any], list[Any]]]:
    made = {name: ViT(**TINY | OPTIONS[name]) for name in FRESH}
    houses = {name: house(ViT(**TINY, name="inner")) for name, house in HOUSES.items()}
    return answers_before_and_after(tmp_path_factory.mktemp("saved"), made | houses)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NormalizationType)
def test_the_whole_product_of_options_is_loaded_with_the_same_bits(tmp_path: Path, kind: str) -> None:
    made = {}
    for position, ffn, pooling, top in itertools.product(NormalizationPosition, FFNType, POOLINGS, [True, False]):
        made[f"{position}-{ffn}-{pooling}-{top}"] = ViT(
            **TINY,
            normalization_type=kind,
            normalization_position=position,
            ffn_type=ffn,
            pooling=pooling,
            include_top=top,
        )
    for name, (before, after) in answers_before_and_after(tmp_path, made).items():
        np.testing.assert_array_equal(before[0], after[0], err_msg=name)


@pytest.mark.slow  # of a file of an earlier version it is quick
@pytest.mark.parametrize("name", [*FRESH, *HOUSES])
def test_a_new_process_loads_the_file_and_answers_with_the_same_bits(
    reloaded: dict[str, tuple[list[Any], list[Any]]], name: str
) -> None:
    expected, found = reloaded[name]
    assert len(expected) == len(found)
    for before, after in zip(expected, found, strict=True):
        assert np.isfinite(before).all()
        np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_a_new_process_loads_a_model_with_any_option_with_the_same_bits(models: dict[str, ViT], tmp_path: Path) -> None:
    for name, (before, after) in answers_before_and_after(tmp_path, models).items():
        assert np.isfinite(before[0]).all()
        np.testing.assert_array_equal(before[0], after[0], err_msg=name)


# Of the others, that their configs and their clones are the same is among the quick tests.
@pytest.mark.parametrize(
    "name", [name if name in FRESH else pytest.param(name, marks=pytest.mark.slow) for name in OPTIONS]
)
def test_every_constructor_argument_survives_load_and_save(tmp_path: Path, models: dict[str, ViT], name: str) -> None:
    model = models[name]
    model.save(tmp_path / "a.keras")
    again = keras.saving.load_model(tmp_path / "a.keras")
    assert type(again) is ViT
    (before,), (after,) = answers(model, images_for(model)), answers(again, images_for(model))
    assert np.isfinite(before).all()
    np.testing.assert_array_equal(before, after)
    assert again.get_config() == model.get_config()
    for attribute in ("config", "rates", "preprocess", "labels", "provenance", "name", "trainable"):
        assert getattr(again, attribute) == getattr(model, attribute), attribute
    assert again.dtype_policy.name == model.dtype_policy.name


@pytest.mark.parametrize("name", OPTIONS)
def test_a_config_is_plain_json_and_makes_the_model_again(models: dict[str, ViT], name: str) -> None:
    model = models[name]
    stored = json.loads(json.dumps(model.get_config()))
    assert ViT.from_config(stored).get_config() == model.get_config()


@pytest.mark.parametrize("name", OPTIONS)
def test_a_clone_has_the_same_config_and_weights_of_its_own(models: dict[str, ViT], name: str) -> None:
    model = models[name]
    clone = keras.models.clone_model(model)
    assert clone.get_config() == model.get_config()
    clone.set_weights([value + 1 for value in clone.get_weights()])
    first = next(iter(model.canonical_variables().values()))
    assert first is not next(iter(clone.canonical_variables().values()))


def test_a_clone_is_drawn_from_the_same_seed() -> None:
    model = ViT(**TINY, seed=6)
    for before, after in zip(model.get_weights(), keras.models.clone_model(model).get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@given(
    heads=st.integers(1, 3),
    patch=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    norm=st.sampled_from(list(NormalizationType)),
    position=st.sampled_from(list(NormalizationPosition)),
    ffn=st.sampled_from(list(FFNType)),
    pooling=st.sampled_from(POOLINGS),
    include_top=st.booleans(),
    seed=st.none() | st.integers(0, 2**40),
    rate=st.floats(0, 0.9),
)
@settings(max_examples=15, deadline=None)
def test_any_model_is_made_again_from_its_config(
    heads: int,
    patch: tuple[int, int],
    grid: tuple[int, int],
    norm: str,
    position: str,
    ffn: str,
    pooling: str | None,
    include_top: bool,
    seed: int | None,
    rate: float,
) -> None:
    model = ViT(
        (patch[0] * grid[0], patch[1] * grid[1], 2),
        3,
        patch_size=patch,
        embed_dim=4 * heads,
        num_heads=heads,
        num_layers=1,
        mlp_dim=5,
        normalization_type=norm,
        normalization_position=position,
        ffn_type=ffn,
        pooling=pooling,
        include_top=include_top,
        seed=seed,
        stochastic_depth_rate=rate,
    )
    again = ViT.from_config(json.loads(json.dumps(model.get_config())))
    assert again.get_config() == model.get_config()
    assert again.to_checkpoint().digest() == model.to_checkpoint().digest()


def test_weights_alone_can_be_saved_and_loaded(tmp_path: Path) -> None:
    model = scrambled(ViT(**TINY))
    model.save_weights(tmp_path / "a.weights.h5")
    other = ViT(**TINY, seed=None)
    other.load_weights(tmp_path / "a.weights.h5")
    for before, after in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_weights_of_another_norm_are_refused_with_the_layers_name(tmp_path: Path) -> None:
    ViT(**TINY).save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match=r"layer 'vit/.*norm1?' holds \['scale'\], the file holds"):
        ViT(**TINY, normalization_type="rms_norm").load_weights(tmp_path / "a.weights.h5")


def test_training_goes_on_after_loading(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((8, 8, 12, 3)).astype(np.float32), rng.integers(0, 5, 8)
    model = ViT(**TINY)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, run_eagerly=True)
    model.fit(*data, verbose=0)
    model.save(tmp_path / "a.keras")
    again = keras.saving.load_model(tmp_path / "a.keras")
    assert int(again.optimizer.iterations) == 1
    # All that the next step depends on has the same bits; what the step then sums, threads may sum in any order.
    for before, after in zip(
        [*model.variables, *model.optimizer.variables], [*again.variables, *again.optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(before), keras.ops.convert_to_numpy(after))
    losses = [each.fit(*data, verbose=0, shuffle=False).history["loss"] for each in (model, again)]
    np.testing.assert_allclose(*losses, rtol=8 * np.finfo(np.float32).eps)
    assert int(again.optimizer.iterations) == 2


def test_fine_tuned_weights_survive_with_the_provenance(tmp_path: Path) -> None:
    model = scrambled(ViT(**TINY, seed=2))
    model.save(tmp_path / "a.keras")
    checkpoint, again = model.to_checkpoint(), keras.saving.load_model(tmp_path / "a.keras").to_checkpoint()
    assert again.digest() == checkpoint.digest()
    assert again.provenance == checkpoint.provenance


def test_what_a_file_does_not_say_is_stated_when_it_is_loaded(tmp_path, make_checkpoint):
    from vit_deploy import checkpoints

    whole = make_checkpoint()
    checkpoints.save(whole, tmp_path / "a.safetensors")
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    reading = vit_deploy.CheckpointOptions(mean=[0.1, 0.2, 0.3], labels=str(tmp_path / "labels.txt"))
    model = vit_deploy.load(tmp_path / "a.safetensors", reading=reading)
    assert model.preprocess.mean == (0.1, 0.2, 0.3)
    assert model.to_checkpoint().labels == ("a", "b", "c", "d", "e")
    features = vit_deploy.load(tmp_path / "a.safetensors", reading=vit_deploy.CheckpointOptions(no_head=True))
    assert not features.to_checkpoint().config.include_top
