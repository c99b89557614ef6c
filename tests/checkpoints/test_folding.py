from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_models import FEATURES, sequence, trained, under, vit

from vit_deploy import checkpoints
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError

layers = keras.layers


@keras.saving.register_keras_serializable("theirs")
class Dense(keras.layers.Dense):
    pass


FOLDABLE: dict[str, Callable[[], Any]] = {
    "functional": lambda: under(vit(**FEATURES), layers.Dropout(0.5), layers.Dense(4)),
    "no bias": lambda: under(vit(**FEATURES), layers.Dense(4, use_bias=False)),
    "one unit": lambda: under(vit(**FEATURES), layers.Dense(1)),
    "mean": lambda: under(vit(include_top=False, pooling="mean"), layers.Dense(4)),
    "max, other norm": lambda: under(
        vit(include_top=False, pooling="max", normalization_type="band_rms", ffn_type="glu"), layers.Dense(4)
    ),
    "not training": lambda: under(vit(**FEATURES, dropout_rate=0.3), layers.Dense(4), training=False),
    "sequence": lambda: sequence(vit(**FEATURES), layers.Dropout(0.1), layers.Dropout(0.1), layers.Dense(4)),
    "dropout all around": lambda: sequence(layers.Dropout(0.1), vit(**FEATURES), layers.Dense(4), layers.Dropout(0.1)),
    "trained": lambda: trained(under(vit(**FEATURES, dropout_rate=0.1), layers.Dropout(0.5), layers.Dense(4))),
    "frozen": lambda: trained(sequence(vit(**FEATURES, trainable=False, name="frozen"), layers.Dense(4))),
}

PLAIN_FIX = "a model can be converted if it consists of InputLayer, one ViT with include_top=False"
LOGITS_FIX = "exported models give logits: set model.layers[-1].activation = keras.activations.linear"

REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "softmax": (
        lambda: under(vit(**FEATURES), layers.Dense(4, activation="softmax", name="probabilities")),
        "Dense 'probabilities' has the activation 'softmax'",
        LOGITS_FIX,
    ),
    "another layer": (
        lambda: under(vit(**FEATURES), layers.LayerNormalization(name="ln"), layers.Dense(4)),
        "LayerNormalization 'ln' is a layer of another kind",
        PLAIN_FIX,
    ),
    "preprocessing": (
        lambda: sequence(layers.Rescaling(1 / 255, name="scale"), vit(**FEATURES), layers.Dense(4)),
        "Rescaling 'scale' is a layer of another kind",
        PLAIN_FIX,
    ),
    "lambda": (
        lambda: under(vit(**FEATURES), layers.Lambda(lambda x: 2 * x, name="code"), layers.Dense(4)),
        "Lambda 'code' is a layer of another kind, which is code from the file and is not run",
        PLAIN_FIX,
    ),
    "custom": (
        lambda: under(vit(**FEATURES), Dense(4, name="mine")),
        "theirs>Dense 'mine' is a layer of another kind; it has no Dense",
        PLAIN_FIX,
    ),
    "two heads": (
        lambda: under(vit(**FEATURES), layers.Dense(6, name="a"), layers.Dense(4, name="b")),
        "it has 2 of Dense: Dense 'a', Dense 'b'",
        PLAIN_FIX,
    ),
    "no head": (lambda: sequence(vit(**FEATURES)), "it has no Dense", PLAIN_FIX),
    "no ViT": (lambda: sequence(layers.Flatten(name="flat"), layers.Dense(4)), "it has no ViT", PLAIN_FIX),
    "head on a head": (
        lambda: under(vit(name="full"), layers.Dense(4)),
        "vit_deploy>ViT 'full' has a head of its own (include_top=True)",
        PLAIN_FIX,
    ),
    "a sequence of tokens": (
        lambda: under(vit(include_top=False), layers.Dense(4)),
        "vit_deploy>ViT 'vit' has pooling=None and gives a sequence",
        PLAIN_FIX,
    ),
    "training": (
        lambda: under(vit(**FEATURES), layers.Dense(4), training=True),
        "vit_deploy>ViT 'vit' is called with training=True",
        PLAIN_FIX,
    ),
    "nested": (
        lambda: sequence(under(vit(**FEATURES), layers.Dropout(0.5)), layers.Dense(4)),
        "Functional 'tuned' is a layer of another kind; it has no ViT",
        PLAIN_FIX,
    ),
}


def twins() -> Any:
    inputs = keras.Input((8, 12, 3))
    both = layers.Add(name="sum")([vit(**FEATURES, name="one")(inputs), vit(**FEATURES, name="two")(inputs)])
    return keras.Model(inputs, layers.Dense(4)(both))


def two_outputs() -> Any:
    inputs = keras.Input((8, 12, 3))
    features = vit(**FEATURES)(inputs)
    return keras.Model(inputs, [features, layers.Dense(4)(features)])


def skipped() -> Any:
    inputs = keras.Input((8, 12, 3))
    features = vit(**FEATURES)(inputs)
    return keras.Model(inputs, [layers.Dense(4)(features), layers.Dropout(0.1, name="aside")(features)])


REFUSED |= {
    "twins": (twins, "it has 2 of ViT: vit_deploy>ViT 'one', vit_deploy>ViT 'two'", PLAIN_FIX),
    "two outputs": (two_outputs, "it has 2 outputs", PLAIN_FIX),
    "a branch": (skipped, "it has 2 outputs", PLAIN_FIX),
}


@pytest.mark.parametrize("name", FOLDABLE)
def test_a_fine_tuned_model_becomes_one_vit_with_a_head(tmp_path: Path, name: str) -> None:
    model = FOLDABLE[name]()
    model.save(tmp_path / "a.keras")
    folded = checkpoints.load(tmp_path / "a.keras")
    images = np.random.default_rng(5).standard_normal((3, 8, 12, 3)).astype(np.float32)
    expected = np.asarray(model(images, training=False))
    assert folded.config.include_top
    assert folded.config.num_classes == expected.shape[-1]
    np.testing.assert_allclose(forward(folded, images), expected, atol=1e-5, rtol=0)
    head = next(layer.name for layer in model.layers if isinstance(layer, layers.Dense))
    facts = {"model": model.name, "head": head, "num_classes": expected.shape[-1]}
    assert folded.provenance[-1].to_dict() == {"action": "fold", **facts}
    assert folded.provenance[0].action == "random"


def test_a_backbone_in_half_precision_folds_to_its_own_weights(tmp_path: Path) -> None:
    backbone = vit(**FEATURES, dtype="mixed_float16")
    model = under(backbone, layers.Dense(4))
    model.save(tmp_path / "a.keras")
    folded = checkpoints.load(tmp_path / "a.keras")
    for name, weight in backbone.to_checkpoint().weights.items():
        np.testing.assert_array_equal(folded.weights[name], weight)


def test_labels_stay_where_they_still_fit(tmp_path: Path) -> None:
    for units, kept in ((5, ("a", "b", "c", "d", "e")), (4, ())):
        model = under(vit(**FEATURES, labels=("a", "b", "c", "d", "e")), layers.Dense(units))
        model.save(tmp_path / f"{units}.keras")
        assert checkpoints.load(tmp_path / f"{units}.keras").labels == kept


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_one_vit_under_a_linear_head_is_refused_by_name(tmp_path: Path, name: str) -> None:
    make, problem, fix = REFUSED[name]
    make().save(tmp_path / "a.keras")
    with pytest.raises(checkpoints.FoldingError) as caught:
        checkpoints.load(tmp_path / "a.keras")
    assert caught.value.message.startswith(f"{tmp_path / 'a.keras'}: it is not one ViT under a linear head: ")
    assert problem in caught.value.message
    assert caught.value.fix.startswith(fix)


def test_a_head_with_softmax_can_be_converted_after_what_the_message_says(tmp_path: Path) -> None:
    model = under(vit(**FEATURES), layers.Dense(4, activation="softmax"))
    images = np.random.default_rng(5).standard_normal((3, 8, 12, 3)).astype(np.float32)
    probabilities = np.asarray(model(images))
    model.layers[-1].activation = keras.activations.linear
    model.save(tmp_path / "a.keras")
    logits = forward(checkpoints.load(tmp_path / "a.keras"), images)
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5, rtol=0)


def test_everything_in_the_way_is_listed_at_once(tmp_path: Path) -> None:
    model = sequence(
        layers.Rescaling(2, name="scale"),
        vit(name="full"),
        layers.Dense(6, "relu", name="a"),
        layers.Dense(4, name="b"),
    )
    model.save(tmp_path / "a.keras")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(tmp_path / "a.keras")
    assert caught.value.message.endswith(
        "it is not one ViT under a linear head: Rescaling 'scale' is a layer of another kind; "
        "it has 2 of Dense: Dense 'a', Dense 'b'; vit_deploy>ViT 'full' has a head of its own (include_top=True); "
        "Dense 'a' has the activation 'relu'"
    )


def test_another_kind_of_model_is_refused_by_its_class(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("theirs")
    class Wrapped(keras.Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.inner = vit()

        def call(self, images: Any) -> Any:
            return self.inner(images)

    model = Wrapped()
    model(np.zeros((1, 8, 12, 3), np.float32))
    model.save(tmp_path / "a.keras")
    with pytest.raises(
        CheckpointError, match=r"it holds a theirs>Wrapped, which is not a ViT of vit-deploy, and no code"
    ):
        checkpoints.load(tmp_path / "a.keras")
