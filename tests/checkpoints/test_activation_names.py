"""An activation's name stands for the same function here and in the library that it is read from, constants and all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.huggingface_folders import changed
from tests.peers import huggingface_models, timm_families
from vit_deploy.checkpoints import load
from vit_deploy.checkpoints.huggingface.config import ACTIVATIONS as OF_TRANSFORMERS
from vit_deploy.checkpoints.timm.config import ACTIVATIONS as OF_TIMM
from vit_deploy.core.activation_functions import ACTIVATIONS
from vit_deploy.core.choices import Activation
from vit_deploy.errors import ConfigError

VALUES = np.concatenate([np.linspace(-12, 12, 97), [0.0, -3.0, 3.0, 6.0]])
CLOSE = 1e-6  # of float64 against a constant that is written with ten digits
GOLDEN = Path(timm_families.__file__).parent / "golden"


@pytest.mark.peers
@pytest.mark.parametrize("name", OF_TIMM)
def test_a_name_of_timm_is_its_function(name: str, timm: Any) -> None:
    torch = pytest.importorskip("torch")
    theirs = timm.layers.create_act_layer(name)(torch.from_numpy(VALUES)).numpy()
    np.testing.assert_allclose(ACTIVATIONS[OF_TIMM[name]](VALUES), theirs, rtol=CLOSE, atol=CLOSE)


@pytest.mark.peers
@pytest.mark.skipif(not huggingface_models.installed(), reason="needs torch and transformers")
@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_a_name_of_transformers_is_its_function(name: str) -> None:
    import torch

    activations = huggingface_models.library().activations.ACT2FN
    theirs = activations[name](torch.from_numpy(VALUES)).numpy()
    np.testing.assert_allclose(ACTIVATIONS[OF_TRANSFORMERS[name]](VALUES), theirs, rtol=CLOSE, atol=CLOSE)


NOT_OF_KERAS = {
    *(Activation.GELU_TANH, Activation.QUICK_GELU, Activation.GELU_CLIPPED),
    *(Activation.LEAKY_RELU_TORCH, Activation.SQUARED_RELU),
}


@pytest.mark.parametrize("kind", sorted(set(Activation) - NOT_OF_KERAS))
def test_a_name_of_keras_is_its_function(kind: Activation) -> None:
    keras = pytest.importorskip("keras")
    theirs = keras.ops.convert_to_numpy(keras.activations.get(str(kind))(VALUES.astype(np.float32)))
    np.testing.assert_allclose(ACTIVATIONS[kind](VALUES), theirs, rtol=1e-5, atol=CLOSE)


def test_a_leaky_relu_of_torch_has_another_slope_than_that_of_keras(tmp_path: Path) -> None:
    assert load(changed(tmp_path, "vit", config={"hidden_act": "leaky_relu"})).config.activation == "leaky_relu_0.01"
    folder = tmp_path / "timm"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((GOLDEN / "timm/plain/model.safetensors").read_bytes())
    document = json.loads((GOLDEN / "timm/plain/config.json").read_text())
    document["model_args"]["act_layer"] = "leaky_relu"
    (folder / "config.json").write_text(json.dumps(document))
    assert load(folder).config.activation is Activation.LEAKY_RELU_TORCH
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"a leaky_relu of slope 0\.2, as Keras has it"):
        load(folder, config={"num_heads": 3, "image_size": [24, 32], "activation": "leaky_relu"})
