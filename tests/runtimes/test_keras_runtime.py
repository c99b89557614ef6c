from __future__ import annotations

import keras
import numpy as np
import pytest

from vit_deploy.core.artifact import describe
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.reference import forward
from vit_deploy.errors import EngineError
from vit_deploy.model.vit import ViT
from vit_deploy.runtimes import GPU_PROVIDERS, RuntimeOptions
from vit_deploy.runtimes.keras.runtime import KerasRuntime


@pytest.fixture(scope="module")
def saved(make_checkpoint, tmp_path_factory):
    checkpoint = make_checkpoint()
    directory = tmp_path_factory.mktemp("keras")
    ViT.from_checkpoint(checkpoint).save(directory / "model.keras")
    spec = InputSpec((None, *checkpoint.config.image_size, checkpoint.config.channels))
    return checkpoint, describe(
        checkpoint, directory, format="keras", precision="fp32", input=spec, model="model.keras"
    )


@pytest.mark.parametrize(("provider", "compiled"), [(None, True), ("cpu", True), ("cpu-eager", False)])
def test_a_model_is_compiled_unless_it_is_asked_for_eagerly(saved, monkeypatch, provider, compiled):
    checkpoint, artifact = saved
    calls = []
    original = keras.Model.predict_on_batch
    monkeypatch.setattr(
        keras.Model, "predict_on_batch", lambda model, images: calls.append(len(images)) or original(model, images)
    )
    images = np.random.default_rng(2).standard_normal((2, *checkpoint.config.image_size, 3)).astype(np.float32)
    with KerasRuntime().open(artifact, RuntimeOptions(provider=provider)) as session:
        outputs = session.infer(images)
        assert session.provider == (provider or "cpu")
    assert calls == ([2] if compiled else [])
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, forward(checkpoint, images), atol=1e-5)


@pytest.mark.parametrize("provider", ["cuda-eager", "cuda", "npu", "-eager"])
def test_a_device_that_is_not_there_is_an_error(saved, monkeypatch, provider):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(EngineError, match=f"has no provider '{provider.removesuffix('-eager') or provider}'"):
        KerasRuntime().open(saved[1], RuntimeOptions(provider=provider)).__enter__()


def test_all_its_providers_on_a_gpu_may_round_as_a_gpu_does():
    assert {name for name in FORMATS.runtimes()["keras"].providers if name.startswith("cuda")} <= set(GPU_PROVIDERS)
