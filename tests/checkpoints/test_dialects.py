"""ViTs of many programs, as these save them, against what these answered when it was recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import state_dicts
from numpy.typing import NDArray

from tests.peers.census import LIMIT, distance
from tests.peers.dialect_models import CASES, HEADS
from tests.peers.make_dialect_golden import EXPECTED, TARGET
from vit_deploy.checkpoints import assumptions, load
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, Pooling
from vit_deploy.core.preprocess import Interpolation
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError, VitDeployError

FILE = "model.safetensors"


def stated(name: str, **more: Any) -> dict[str, Any]:
    """What somebody has to say of a model as small as these."""
    case = CASES[name]
    sizes = {} if case.beside else {"num_heads": HEADS, "image_size": list(case.image_size)}
    return {**sizes, **case.stated, **more}


def expected(name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    with np.load(TARGET / name / EXPECTED) as arrays:
        return arrays["images"], arrays["answer"]


def changed(name: str, folder: Path, change: Callable[[state_dicts.Tensors], state_dicts.Tensors]) -> Path:
    """A copy with other tensors."""
    target = folder / name
    shutil.copytree(TARGET / name, target)
    tensors = change(state_dicts.read(target / FILE))
    state_dicts.write(target / FILE, tensors)
    return target


@pytest.mark.parametrize("name", CASES)
def test_a_model_answers_as_its_own_program_does(name: str) -> None:
    images, answer = expected(name)
    assert distance(forward(load(TARGET / name, config=stated(name)), images), answer) < LIMIT


@pytest.mark.parametrize("name", CASES)
def test_the_fixtures_are_small(name: str) -> None:
    assert sum(file.stat().st_size for file in (TARGET / name).iterdir()) < 80_000


@pytest.mark.parametrize(
    "name", ["torchvision", "openai-clip-visual", "monai-linear-head", "mmpretrain-linear", "pytorch_pretrained_vit"]
)
def test_any_prefix_may_stand_before_the_names(name: str, tmp_path: Path) -> None:
    path = changed(name, tmp_path, lambda tensors: {f"module.net.{each}": tensor for each, tensor in tensors.items()})
    images, answer = expected(name)
    assert distance(forward(load(path, config=stated(name)), images), answer) < LIMIT


@pytest.mark.parametrize(
    ("name", "width"),
    [
        *(("torchvision", 16), ("openai-clip", 16), ("open_clip-custom-text", 16), ("vit-pytorch-0.24", 16)),
        *(
            ("vit-pytorch", 16),
            ("mmpretrain", 16),
            ("jeonsworld", 16),
            ("pytorch_pretrained_vit", 16),
            ("vit-pytorch-simple-0.35", 16),
        ),
    ],
)
def test_without_its_head_a_model_gives_the_features_that_its_head_reads(name: str, width: int) -> None:
    whole = load(TARGET / name, config=stated(name))
    bare = load(TARGET / name, config=stated(name, head=False))
    images, answer = expected(name)
    features = forward(bare, images)
    assert features.shape == (2, width)
    head = whole.weights["head.kernel"], whole.weights["head.bias"]
    assert distance(features @ head[0] + head[1], answer) < LIMIT


def test_a_file_without_a_head_is_read_as_one(tmp_path: Path) -> None:
    def headless(tensors: state_dicts.Tensors) -> state_dicts.Tensors:
        return {each: tensor for each, tensor in tensors.items() if not each.startswith("heads.")}

    checkpoint = load(changed("torchvision", tmp_path, headless), config=stated("torchvision"))
    assert (checkpoint.config.include_top, checkpoint.config.pooling) == (False, Pooling.CLS)


def test_what_a_file_cannot_say_is_assumed_and_said() -> None:
    said = assumptions(load(TARGET / "torchvision", config={"num_heads": HEADS}))
    assert said.startswith("assumed, for the checkpoint does not say it: epsilon 1e-06, activation gelu, image_size")
    said = assumptions(load(TARGET / "vit-pytorch-0.24", config=stated("vit-pytorch-0.24")))
    assert "pooling cls" in said


def test_openais_files_are_told_from_others_by_what_they_hold_beside_the_weights(tmp_path: Path) -> None:
    assert load(TARGET / "openai-clip", config=stated("openai-clip")).config.activation is Activation.QUICK_GELU
    checkpoint = load(TARGET / "openai-clip-visual", config={"num_heads": HEADS})
    assert checkpoint.config.activation is Activation.GELU
    assert "activation gelu" in assumptions(checkpoint)


def test_text_towers_are_left_out_and_said() -> None:
    for name in ("openai-clip", "open_clip", "open_clip-custom-text"):
        assert "left out, for the output does not depend on it: text tower" in assumptions(
            load(TARGET / name, config=stated(name))
        )


def test_the_preprocessing_follows_the_program(tmp_path: Path) -> None:
    found = load(TARGET / "open_clip").preprocess
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (found.resize, found.crop, found.keep_aspect) == ((16, 24), True, True)
    assert found.interpolation is Interpolation.BICUBIC
    found = load(TARGET / "torchvision", config=stated("torchvision")).preprocess
    assert (found.resize, found.crop, found.interpolation) == (18, True, Interpolation.BILINEAR)
    assert found.mean == (0.485, 0.456, 0.406)
    found = load(TARGET / "openai-clip", config=stated("openai-clip")).preprocess
    assert (found.resize, found.crop, found.mean[0]) == (16, True, 0.48145466)


def with_config(folder: Path, **changes: Any) -> Checkpoint:
    """An OpenCLIP folder that says something else; `preprocess_cfg` whole, all else of the vision tower."""
    target = folder / "changed"
    shutil.copytree(TARGET / "open_clip", target)
    path = target / "open_clip_config.json"
    document = json.loads(path.read_text())
    document["preprocess_cfg"] = changes.pop("preprocess_cfg", document["preprocess_cfg"])
    document["model_cfg"]["vision_cfg"] |= changes
    path.write_text(json.dumps(document))
    return load(target)


def test_openclips_ways_of_resizing_are_read_or_refused(tmp_path: Path) -> None:
    found = with_config(tmp_path / "a", preprocess_cfg={"resize_mode": "squash", "interpolation": "bilinear"})
    assert (found.preprocess.resize, found.preprocess.crop) == (None, False)
    assert found.preprocess.mean[0] == 0.48145466
    with pytest.raises(CheckpointError, match="resize_mode is 'longest'; expected shortest or squash"):
        with_config(tmp_path / "b", preprocess_cfg={"resize_mode": "longest"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attentional_pool": True}, "attention pooling, of which it has no weights"),
        ({"attentional_pool": "cascade"}, "an attention pooling for words and another for classes"),
        ({"scale_attn": True}, "a norm behind the attention"),
        ({"scaled_cosine_attn": True}, "cosine attention"),
        ({"scale_heads": True}, "a scale of every attention head, of which it has no weights"),
        ({"pool_type": "none"}, "every token projected"),
    ],
)
def test_openclips_other_towers_are_refused_by_what_they_have(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        with_config(tmp_path, **changes)
    assert caught.value.message.endswith("which vit-deploy does not compute")


def test_norms_of_queries_that_openclips_config_says_and_its_weights_lack_are_missed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing block_0\.attention\.query_norm\.scale"):
        with_config(tmp_path, qk_norm=True)


def test_openclips_default_blocks_leave_the_options_of_custom_ones_unread(tmp_path: Path) -> None:
    assert not with_config(tmp_path, qk_norm=True, block_type="default").config.qk_norm


@pytest.mark.parametrize("bias", ["conv_proj.bias", "heads.head.bias"])
def test_a_bias_that_its_program_has_is_missed(bias: str, tmp_path: Path) -> None:
    path = changed(
        "torchvision", tmp_path, lambda tensors: {tensor: t for tensor, t in tensors.items() if tensor != bias}
    )
    with pytest.raises(CheckpointError, match=r"missing (patch_embed|head)\.bias"):
        load(path, config=stated("torchvision"))


def test_a_position_table_without_the_class_tokens_row_is_refused(tmp_path: Path) -> None:
    name, table = "openai-clip-visual", "positional_embedding"
    path = changed(name, tmp_path, lambda tensors: {**tensors, table: tensors[table][1:]})
    with pytest.raises(CheckpointError, match="its position table is for 3 patches, which make no square"):
        load(path, config=stated(name))


def test_a_mean_with_the_class_token_is_refused() -> None:
    name = "vit-pytorch-0.24"
    with pytest.raises(CheckpointError, match="vit-pytorch that has a mean that takes the class token in"):
        load(TARGET / name, config=stated(name, pooling="mean"))


def test_computed_positions_need_the_size_that_they_are_for() -> None:
    with pytest.raises(CheckpointError, match="its positions are computed for the image size"):
        load(TARGET / "vit-pytorch-simple-0.35", config={"num_heads": HEADS, "patch_size": [8, 6]})


@pytest.mark.parametrize(
    ("name", "drop", "problem"),
    [
        ("torchvision", "encoder.layers.encoder_layer_1.mlp.0.bias", "missing block_1.ffn.up.bias (20,)"),
        ("jeonsworld", "transformer.encoder.layer.0.attn.key.weight", "missing block_0.attention.key.kernel (16, 16)"),
        ("mmpretrain", "backbone.ln1.weight", "missing norm.scale (16,)"),
        ("open_clip", "visual.ln_post.bias", "missing norm.bias (16,)"),
        ("monai-linear-head", "norm.weight", "missing norm.scale (16,)"),
    ],
)
def test_what_is_missing_is_said_by_its_name(name: str, drop: str, problem: str, tmp_path: Path) -> None:
    path = changed(name, tmp_path, lambda tensors: {tensor: t for tensor, t in tensors.items() if tensor != drop})
    with pytest.raises(CheckpointError) as caught:
        load(path, config=stated(name))
    assert problem in caught.value.message


def test_what_belongs_to_nothing_is_said_too(tmp_path: Path) -> None:
    path = changed("torchvision", tmp_path, lambda tensors: {**tensors, "aux.weight": np.zeros((2, 3))})
    with pytest.raises(CheckpointError, match=r"unexpected aux.weight \(2, 3\)"):
        load(path, config=stated("torchvision"))


@pytest.mark.parametrize(
    ("name", "shape", "problem"),
    [
        ("conv_proj.weight", (16, 3, 8), r"patch_embed.weight \(16, 3, 8\) has not 4 axes"),
        ("encoder.pos_embedding", (2, 5, 16), r"pos_embed \(2, 5, 16\) has not 2 axes"),
    ],
)
def test_shapes_of_no_vit_are_refused(name: str, shape: tuple[int, ...], problem: str, tmp_path: Path) -> None:
    path = changed("torchvision", tmp_path, lambda tensors: {**tensors, name: np.zeros(shape)})
    with pytest.raises(CheckpointError, match=problem):
        load(path, config=stated("torchvision"))


ZEROS = {name: np.zeros(shape) for name, shape in {"a": (16,), "b": (16, 16), "c": (16, 3, 8, 8)}.items()}
OTHERS = {
    "clip's resnet": (
        {"visual.conv1.weight": "c", "visual.attnpool.positional_embedding": "b", "visual.layer1.0.conv1.weight": "c"},
        "it is a ViT of OpenCLIP that has a ResNet for its vision tower",
        "give a CLIP model whose vision tower is a plain ViT",
    ),
    "coca": (
        {"visual.conv1.weight": "c", "visual.class_embedding": "a", "visual.attn_pool_contrastive.query": "b"},
        "an attention pooling for words and another for classes",
        "give a CLIP model whose vision tower is a plain ViT",
    ),
    "jeonsworld's hybrid": (
        {"transformer.embeddings.patch_embeddings.weight": "c", "transformer.embeddings.hybrid_model.root.w": "c"},
        "a convolutional network for its stem",
        "give a ViT without it",
    ),
    "pytorch_pretrained_vit with its representation layer": (
        {"patch_embedding.weight": "c", "positional_embedding.pos_embedding": "b", "pre_logits.weight": "b"},
        "a dense layer with tanh before its last norm",
        "give the model that load_repr_layer=False makes",
    ),
    "mmpretrain's mean behind the norm of the tokens": (
        {"backbone.patch_embed.projection.weight": "c", "backbone.ln1.weight": "a", "backbone.ln2.weight": "a"},
        "a norm of the tokens and another of their mean",
        "train it with final_norm=False",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_plain_vit_is_refused_by_what_it_has(kind: str, tmp_path: Path) -> None:
    names, words, fix = OTHERS[kind]
    path = state_dicts.write(tmp_path / FILE, {name: ZEROS[tensor] for name, tensor in names.items()})
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert words in caught.value.message
    assert caught.value.fix == fix


def test_patches_of_volumes_are_refused(tmp_path: Path) -> None:
    tensors = {"patch_embedding.patch_embeddings.weight": np.zeros((16, 1, 4, 4, 4))}
    with pytest.raises(CheckpointError, match="it is a ViT of MONAI that has patches of volumes"):
        load(state_dicts.write(tmp_path / FILE, tensors))


def test_a_resnet_is_no_clip(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="it is of no known dialect"):
        load(state_dicts.write(tmp_path / FILE, {"conv1.weight": np.zeros((64, 3, 7, 7))}))


DAMAGES: dict[str, Callable[[NDArray[Any]], NDArray[Any] | None]] = {
    "missing": lambda tensor: None,
    "a number": lambda tensor: np.zeros(()),
    "empty": lambda tensor: np.zeros((*tensor.shape[:-1], 0)),
    "of one axis more": lambda tensor: np.zeros((*tensor.shape, 2)),
    "of one axis less": lambda tensor: np.zeros(tensor.shape[1:]),
    "shorter": lambda tensor: tensor[:-1],
    "of many axes": lambda tensor: np.zeros((1,) * 17),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["torchvision", "jeonsworld", "mmpretrain-linear", "vit-pytorch-simple-0.35"])
def test_a_damaged_tensor_is_an_error_whichever_it_is(name: str, damage: str, tmp_path: Path) -> None:
    target = tmp_path / name
    shutil.copytree(TARGET / name, target)
    tensors = state_dicts.read(target / FILE)
    harmless = 0
    for each, tensor in tensors.items():
        made = DAMAGES[damage](tensor)
        others = {key: value for key, value in tensors.items() if key != each}
        state_dicts.write(target / FILE, others if made is None else {**others, each: made})
        try:
            load(target, config=stated(name))
        except VitDeployError:
            continue
        harmless += 1
    # Axes of one in front of tokens and positions say nothing; a head that is not there is one that was left out.
    assert harmless <= 2
