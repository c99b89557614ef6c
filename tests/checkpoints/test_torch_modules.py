"""A model pickled with its classes says what weights do not; what no config can say is refused, not guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.state_dicts import read
from tests.checkpoints.torch_writer import Instance, View, write_legacy, write_zip
from tests.peers import timm_families
from vit_deploy.checkpoints import load
from vit_deploy.checkpoints.containers.torch_file import open_torch
from vit_deploy.checkpoints.containers.torch_modules import UNREAD, facts_of
from vit_deploy.checkpoints.containers.torch_pickle import Inert
from vit_deploy.checkpoints.containers.torch_state import MAX_NESTED, state_dicts
from vit_deploy.checkpoints.containers.torch_tensors import Storage, Tensor
from vit_deploy.core.choices import Activation, NormalizationPosition
from vit_deploy.errors import CheckpointError

GOLDEN = Path(timm_families.__file__).parent / "golden" / "timm" / "plain"
TIMM = "timm.models.vision_transformer"


def module(
    name: str, parameters: dict[str, Any] | None = None, inside: dict[str, Any] | None = None, **said: Any
) -> Any:
    return Instance(name, {"_parameters": parameters or {}, "_buffers": {}, "_modules": inside or {}, **said})


def inert(name: str, **attributes: Any) -> Inert:
    return Inert(name, state=attributes)


def whole(*beside: Any, **said: Any) -> Any:
    """A model of timm's as `torch.save(model)` has it, without what its modules say but for what is given here."""
    root: dict[str, Any] = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    for name, tensor in read(GOLDEN / "model.safetensors").items():
        *path, last = name.split(".")
        at = root
        for part in path:
            at = at["_modules"].setdefault(part, {"_parameters": {}, "_buffers": {}, "_modules": {}})
        at["_parameters"][last] = tensor

    def made(name: str, at: dict[str, Any], **more: Any) -> Instance:
        inside = {part: made("torch.nn.Module", held) for part, held in at["_modules"].items()}
        return Instance(name, {**at, "_modules": inside, **more})

    model = made(f"{TIMM}.VisionTransformer", root, **said)
    more = {f"beside{number}": each for number, each in enumerate(beside)}
    return Instance(model.name, {**model.state, "_modules": {**model.state["_modules"], **more}})


def test_pooling_images_and_activation_are_those_of_the_modules(tmp_path: Path) -> None:
    stem = module("timm.layers.patch_embed.PatchEmbed", img_size=(24, 32))
    act = module("timm.layers.activations.HardSwish")
    block = module(f"{TIMM}.ResPostBlock")
    path = write_zip(tmp_path / "a.pth", whole(stem, act, block, global_pool="avg"))
    config = load(path, config={"num_heads": 3}).config
    assert config.normalization_position is NormalizationPosition.RES_POST
    assert (config.image_size, str(config.pooling), config.activation) == ((24, 32), "mean", Activation.HARD_SILU)


@pytest.mark.parametrize(
    ("beside", "said", "refused"),
    [
        (["torch.nn.modules.activation.SELU"], {}, "the activation SELU"),
        (["timm.layers.activations.HardMish"], {}, "the activation HardMish"),
        ([f"{TIMM}.DiffParallelScalingBlock"], {}, "the blocks DiffParallelScalingBlock"),
        ([f"{TIMM}.BlockOfTomorrow", f"{TIMM}.FutureBlock"], {}, "the blocks FutureBlock"),
        ([], {"global_pool": "avg", "pool_include_prefix": True}, "a pooling that takes its prefix tokens in"),
        ([], {"global_pool": "", "num_classes": 5}, "a head for every token"),
    ],
)
def test_modules_that_no_config_can_say_are_refused(
    beside: list[str], said: dict[str, Any], refused: str, tmp_path: Path
) -> None:
    path = write_zip(tmp_path / "a.pth", whole(*map(module, beside), **said))
    with pytest.raises(CheckpointError, match=f"saved with its classes has {refused}, which no ViT") as caught:
        load(path, config={"num_heads": 3, "image_size": [24, 32]})
    assert caught.value.fix


def test_the_activation_of_a_pooler_is_not_that_of_the_blocks() -> None:
    tanh, gelu = inert("torch.nn.modules.activation.Tanh"), inert("torch.nn.modules.activation.GELU")
    assert facts_of([tanh, gelu]) == {"activation": "gelu"}
    assert facts_of([tanh, tanh]) == {"activation": "tanh"}
    assert facts_of([gelu, inert("timm.layers.mlp.SwiGLU")]) == {}
    assert facts_of([inert("__torch__.torch.nn.modules.activation.CELU")])[UNREAD] == ["the activation CELU"]
    leaky = inert("torch.nn.modules.activation.LeakyReLU", negative_slope=0.01)
    assert facts_of([leaky, leaky]) == {"activation": "leaky_relu_0.01"}
    steep = facts_of([inert("torch.nn.modules.activation.LeakyReLU", negative_slope=0.2)])
    assert steep[UNREAD] == ["the activation LeakyReLU with negative_slope 0.2"]
    assert facts_of([inert("torch.nn.modules.activation.MultiheadAttention", num_heads=4)]) == {"num_heads": 4}


def test_what_transformers_keeps_in_its_modules_is_read() -> None:
    config = inert("transformers.models.vit.configuration_vit.ViTConfig", image_size=[24, 32])
    module = inert("transformers.models.vit.modeling_vit.ViTLayer", config=config)
    assert facts_of([module, module]) == {"image_size": (24, 32)}
    assert facts_of([inert("transformers.activations.AccurateGELUActivation")]) == {"activation": "gelu_tanh"}
    assert facts_of([inert("transformers.activations.ReLUSquaredActivation")]) == {"activation": "squared_relu"}
    clipped = facts_of([inert("transformers.activations.LaplaceActivation")])
    assert clipped == {UNREAD: ["the activation LaplaceActivation"]}
    backbone = facts_of([inert("transformers.models.dinov2.modeling_dinov2.Dinov2Backbone")])
    assert "the feature maps of Dinov2Backbone" in backbone[UNREAD][0]


def as_module(parameters: dict[str, Any], inside: dict[str, Any]) -> Inert:
    return inert("torch.nn.Module", _parameters=parameters, _buffers={}, _modules=inside)


TENSOR = Tensor(Storage("0", "float32", 1), "float32", 0, (1,), (1,))


def test_a_block_that_is_used_twice_is_there_twice() -> None:
    block = as_module({"weight": TENSOR}, {})
    root = as_module({}, {"blocks": as_module({}, {"0": block, "1": as_module({"weight": TENSOR}, {}), "2": block})})
    assert sorted(state_dicts(root).tensors) == ["blocks.0.weight", "blocks.1.weight", "blocks.2.weight"]


def test_modules_inside_of_themselves_end() -> None:
    root = as_module({"weight": TENSOR}, {})
    root.state["_modules"]["parent"] = root
    assert list(state_dicts(root).tensors) == ["weight"]


def test_modules_without_an_end_are_refused() -> None:
    deep = as_module({"weight": TENSOR}, {})
    for _ in range(MAX_NESTED):
        deep = as_module({}, {"inner": deep})
    doubled = as_module({"weight": TENSOR}, {})
    for _ in range(30):
        doubled = as_module({}, {"left": doubled, "right": doubled})
    for root in (deep, doubled):
        with pytest.raises(CheckpointError, match="modules, or of 64 inside of each other"):
            state_dicts(root)


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_a_view_with_the_other_sign_is_read_with_it(write: Any, tmp_path: Path) -> None:
    storage = np.arange(6, dtype=np.float32)
    path = write(tmp_path / "a.pth", {"a": View(storage, (2, 3), (3, 1), metadata={"neg": True})})
    with open_torch(path) as file:
        np.testing.assert_array_equal(file.read("a"), -storage.reshape(2, 3))
