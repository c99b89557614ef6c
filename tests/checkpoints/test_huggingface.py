"""Models of transformers, against what transformers answers: recorded, and live where it is installed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.peers import huggingface_models
from tests.peers.huggingface_models import CASES, Case
from tests.peers.make_huggingface_golden import EXPECTED, GOLDEN, TARGET
from vit_deploy.checkpoint import Checkpoint
from vit_deploy.checkpoints import assumptions, load
from vit_deploy.checkpoints.safetensors_file import open_safetensors, write_safetensors
from vit_deploy.config import Activation, FFNType, Pooling
from vit_deploy.errors import CheckpointError, ConfigError
from vit_deploy.reference import forward
from vit_deploy.resize import convention_of, resize

Tensors = dict[str, NDArray[np.float32]]
LIMIT = 1e-5  # of the largest answer

live = pytest.mark.skipif(not huggingface_models.installed(), reason="needs torch and transformers")


def deviation(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def answered(checkpoint: Checkpoint, case: Case, images: NDArray[np.float32]) -> NDArray[Any]:
    found = forward(checkpoint, huggingface_models.read_part(images, case))
    return found[:, checkpoint.config.num_prefix_tokens :] if case.answer == "map" else found


@pytest.fixture(scope="module", params=GOLDEN)
def golden(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_saved_model_answers_as_transformers_does(golden: str) -> None:
    with np.load(TARGET / golden / EXPECTED) as expected:
        checkpoint = load(TARGET / golden)
        assert deviation(answered(checkpoint, CASES[golden], expected["images"]), expected["answer"]) < LIMIT
        if "images_resized" in expected:
            resized = resize(checkpoint, CASES[golden].resized)
            assert deviation(forward(resized, expected["images_resized"]), expected["answer_resized"]) < LIMIT


def test_the_fixtures_are_small(golden: str) -> None:
    assert sum(file.stat().st_size for file in (TARGET / golden).iterdir()) < 200_000


@live
@pytest.mark.peers
@pytest.mark.parametrize("name", CASES)
def test_a_model_made_by_transformers_gives_its_own_answers(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model = huggingface_models.build(case)
    huggingface_models.save(model, case, tmp_path)
    checkpoint = load(tmp_path, config=case.stated)
    images = huggingface_models.images_for(case, case.image_size)
    theirs = huggingface_models.answer(model, case, images)
    assert deviation(answered(checkpoint, case, images), theirs) < LIMIT
    if case.resized:
        images = huggingface_models.images_for(case, case.resized)
        theirs = huggingface_models.answer(model, case, images, **case.call)
        assert deviation(forward(resize(checkpoint, case.resized), images), theirs) < LIMIT


@live
@pytest.mark.peers
@pytest.mark.parametrize("sharded", [False, True])
def test_files_of_torch_are_read_as_well(sharded: bool, tmp_path: Path) -> None:
    import torch

    case = CASES["vit"]
    model = huggingface_models.build(case)
    model.config.save_pretrained(tmp_path)
    state = model.state_dict()
    parts = [list(state)[::2], list(state)[1::2]] if sharded else [list(state)]
    files = [f"pytorch_model-{number}.bin" for number in (1, 2)] if sharded else ["pytorch_model.bin"]
    for names, file in zip(parts, files, strict=True):
        torch.save({name: state[name] for name in names}, tmp_path / file)
    if sharded:
        index = {name: file for names, file in zip(parts, files, strict=True) for name in names}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    images = huggingface_models.images_for(case, case.image_size)
    theirs = huggingface_models.answer(model, case, images)
    assert deviation(forward(load(tmp_path), images), theirs) < LIMIT


class Change:
    """Copies a golden folder as one file, with other tensors or documents."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        name: str,
        tensors: Callable[[Tensors], Tensors] = lambda tensors: tensors,
        config: Mapping[str, Any] | None = None,
    ) -> Path:
        target = self.folder / name
        shutil.copytree(TARGET / name, target, ignore=shutil.ignore_patterns("*.safetensors*"))
        held: Tensors = {}
        for file in sorted((TARGET / name).glob("*.safetensors")):
            with open_safetensors(file) as opened:
                held |= {each: opened.read(each) for each in opened.names()}
        write_safetensors(target / "model.safetensors", tensors(held), {"format": "pt"})
        document = json.loads((target / "config.json").read_text())
        changed = {key: value for key, value in {**document, **(config or {})}.items() if value is not None}
        (target / "config.json").write_text(json.dumps(changed))
        return target


@pytest.fixture
def change(tmp_path: Path) -> Change:
    return Change(tmp_path)


def expected_of(name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    with np.load(TARGET / name / EXPECTED) as expected:
        return expected["images"], expected["answer"]


def test_the_config_says_what_shapes_cannot() -> None:
    config = load(TARGET / "vit").config
    assert (config.image_size, config.patch_size, config.num_heads, config.epsilon) == ((16, 24), (8, 6), 3, 1e-3)
    assert load(TARGET / "vit-newer").config.activation is Activation.RELU
    assert load(TARGET / "clip").config.activation is Activation.QUICK_GELU
    assert load(TARGET / "clip").config.epsilon == 1e-5
    assert load(TARGET / "siglip").config.activation is Activation.GELU_TANH
    assert not load(TARGET / "vit-model").config.qkv_bias


def test_each_family_has_its_own_parts() -> None:
    assert load(TARGET / "deit-teacher").config.pooling is Pooling.CLS_DISTILLATION
    dinov2 = load(TARGET / "dinov2").config
    assert (dinov2.pooling, dinov2.ffn_type, dinov2.layer_scale) == (Pooling.CLS_MEAN, FFNType.SWIGLU, True)
    assert load(TARGET / "registers").config.register_tokens == 3
    clip = load(TARGET / "clip")
    assert (clip.config.pre_norm, clip.config.num_classes) == (True, 7)
    assert not clip.weights["patch_embed.bias"].any()
    assert not clip.weights["head.bias"].any()
    siglip = load(TARGET / "siglip").config
    assert (siglip.pooling, siglip.class_token, siglip.include_top) == (Pooling.MAP, False, False)


def test_labels_come_along() -> None:
    assert load(TARGET / "vit").labels == ("ant", "bee", "cat", "dog", "elk")
    assert load(TARGET / "siglip-classifier").labels == ("ant", "bee", "cat", "dog", "elk")
    assert load(TARGET / "vit-newer").labels == ()


def test_labels_that_say_only_their_number_are_none(change: Change) -> None:
    nameless = {str(number): f"LABEL_{number}" for number in range(5)}
    assert load(change("vit", config={"id2label": nameless})).labels == ()


def test_labels_are_in_the_order_of_their_numbers(change: Change) -> None:
    names = {"3": "dog", "10": "no", "0": "ant", "4": "elk", "2": "cat", "1": "bee"}
    del names["10"]
    assert load(change("vit", config={"id2label": names})).labels == ("ant", "bee", "cat", "dog", "elk")


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("vit-model", "pooler"),
        ("mae", "decoder"),
        ("clip", "text tower"),
        ("dinov2", "mask token"),
        ("siglip-classifier", "attention pooling"),
    ],
)
def test_what_the_output_does_not_depend_on_is_said(name: str, left_out: str) -> None:
    said = assumptions(load(TARGET / name))
    assert said == f"left out, for the output does not depend on it: {left_out}"


@pytest.mark.parametrize(
    ("name", "convention"),
    [("vit", "huggingface"), ("dinov2", "huggingface"), ("registers", "dinov2-registers"), ("clip", "huggingface")],
)
def test_positions_are_resampled_as_the_program_does(name: str, convention: str) -> None:
    assert str(convention_of(load(TARGET / name))) == convention


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("vit-newer", "vit.", ""),
        ("dinov2", "dinov2.", ""),
        ("deit", "deit.", ""),
        ("siglip-vision", "", "vision_model."),
        ("clip-vision", "", "vision_model."),
    ],
)
def test_the_prefix_may_be_there_or_not(name: str, old: str, new: str, change: Change) -> None:
    def renamed(tensors: Tensors) -> Tensors:
        heads = ("classifier",)
        return {
            each if each.startswith(heads) else new + each.removeprefix(old): tensor for each, tensor in tensors.items()
        }

    images, answer = expected_of(name)
    assert deviation(forward(load(change(name, renamed)), images), answer) < LIMIT


def test_weights_alone_take_defaults_that_are_said(change: Change) -> None:
    folder = change("clip-vision")
    (folder / "config.json").unlink()
    checkpoint = load(folder / "model.safetensors", config={"num_heads": 3})
    images, answer = expected_of("clip-vision")
    assert deviation(forward(checkpoint, images), answer) < LIMIT
    assert assumptions(checkpoint) == (
        "assumed, for the checkpoint does not say it: epsilon 1e-05, activation quick_gelu, image_size [16, 16] "
        "(say otherwise with --config)"
    )


@pytest.mark.parametrize("name", ["deit-teacher", "dinov2", "registers", "mae-newer", "siglip-vision"])
def test_a_family_is_known_by_its_parts(name: str, change: Change) -> None:
    folder = change(name)
    (folder / "config.json").unlink()
    images, answer = expected_of(name)
    checkpoint = load(folder, config={"num_heads": 3, "image_size": images.shape[1:3]})
    assert deviation(forward(checkpoint, images), answer) < LIMIT


def test_weights_alone_of_an_unusual_width_do_not_tell_their_heads(change: Change) -> None:
    folder = change("clip-vision")
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError) as failure:
        load(folder)
    assert "nothing says how many heads it has" in str(failure.value)
    assert '"num_heads"' in failure.value.fix


def test_weights_alone_of_no_square_do_not_tell_their_size(change: Change) -> None:
    folder = change("vit")
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="8 patches, which make no square"):
        load(folder, config={"num_heads": 3})


@pytest.mark.parametrize("model_type", ["swin", "beit", "convnext", "dinov3_vit"])
def test_another_architecture_is_refused_by_its_name(model_type: str, change: Change) -> None:
    folder = change("vit", lambda tensors: {f"{model_type}.stem": np.zeros(3, np.float32)}, {"model_type": model_type})
    with pytest.raises(CheckpointError) as failure:
        load(folder)
    assert f"model_type '{model_type}'; expected one of vit, deit," in str(failure.value)
    assert "fix: give a plain ViT" in str(failure.value)


def test_another_architecture_with_the_names_of_a_vit_is_refused_too(change: Change) -> None:
    with pytest.raises(CheckpointError, match="model_type 'vit_hybrid'"):
        load(change("vit", config={"model_type": "vit_hybrid"}))


def test_a_config_that_contradicts_the_weights_is_refused_with_all_that_differs(change: Change) -> None:
    changed = {"hidden_size": 48, "num_hidden_layers": 3, "id2label": {"0": "ant"}, "patch_size": 8}
    with pytest.raises(CheckpointError) as failure:
        load(change("vit", config=changed))
    for each in ("embed_dim is 24", "num_layers is 2", "num_classes is 5", "patch_size is [8, 6]"):
        assert f"{each} by its weights and" in str(failure.value)


def test_a_size_that_the_positions_are_not_for_is_refused(change: Change) -> None:
    with pytest.raises(CheckpointError, match=r"for 4 patches, and its config\.json says image_size 32"):
        load(change("dinov2", config={"image_size": 32}))


@pytest.mark.parametrize("act", ["gelu_10", "leaky_relu", 3, ["gelu"]])
def test_an_activation_that_no_vit_here_has_is_refused(act: object, change: Change) -> None:
    with pytest.raises(CheckpointError, match="hidden_act"):
        load(change("vit", config={"hidden_act": act}))


def test_clips_classifier_is_refused(change: Change) -> None:
    def classifier(tensors: Tensors) -> Tensors:
        return {**tensors, "classifier.weight": np.ones((5, 24), np.float32), "classifier.bias": np.ones(5, np.float32)}

    with pytest.raises(CheckpointError, match="CLIPForImageClassification pools tokens before the last norm"):
        load(change("clip-vision", classifier))


def test_a_backbone_without_the_last_norm_is_refused(change: Change) -> None:
    config = {"architectures": ["Dinov2Backbone"], "apply_layernorm": False}
    with pytest.raises(CheckpointError, match="apply_layernorm"):
        load(change("dinov2", config=config))


def test_all_that_is_wrong_with_the_weights_is_listed_at_once(change: Change) -> None:
    def damaged(tensors: Tensors) -> Tensors:
        del tensors["vit.layernorm.bias"]
        del tensors["vit.encoder.layer.1.attention.attention.key.weight"]
        tensors["vit.encoder.layer.0.output.dense.bias"] = np.zeros(7, np.float32)
        tensors["vit.encoder.layer.0.lambda_1"] = np.zeros(24, np.float32)
        tensors["vit.embeddings.cls_token"][0, 0, 3] = np.nan
        return tensors

    with pytest.raises(CheckpointError) as failure:
        load(change("vit", damaged))
    for each in (
        "missing norm.bias (24,)",
        "missing block_1.attention.key.kernel (24, 24)",
        "block_0.ffn.down.bias has shape (7,), expected (24,)",
        "surplus vit.encoder.layer.0.lambda_1 (24,)",
        "class_token.class has 1 values that are NaN or infinite",
    ):
        assert each in str(failure.value)


def test_a_config_that_says_otherwise_is_listed_with_what_is_wrong_with_the_weights(change: Change) -> None:
    first = "vit.encoder.layer.0.intermediate.dense.weight"

    def damaged(tensors: Tensors) -> Tensors:
        del tensors["vit.layernorm.bias"]
        return {**tensors, first: np.zeros((39, 24), np.float32)}

    with pytest.raises(CheckpointError) as failure:
        load(change("vit", damaged, config={"hidden_size": 32}))
    for each in (
        "embed_dim is 24 by its weights and 32 by the config beside it",
        "missing norm.bias (24,)",
        "block_0.ffn.up.kernel has shape (24, 39), expected (24, 40)",
    ):
        assert each in str(failure.value)


def test_a_block_of_an_enormous_number_is_refused_before_it_takes_memory(change: Change) -> None:
    def numbered(tensors: Tensors) -> Tensors:
        last = "vit.encoder.layer.1.layernorm_after.bias"
        return {**tensors, last.replace(".1.", ".999998."): tensors[last]}

    with pytest.raises(CheckpointError, match="999999 layers, and it holds"):
        load(change("vit", numbered, config={"num_hidden_layers": 999999}))


def test_an_image_size_that_the_positions_are_not_for_is_refused_by_both_numbers(change: Change) -> None:
    with pytest.raises(CheckpointError) as failure:
        load(change("vit", config={"image_size": [64, 24]}))
    assert "its position table is for 8 patches, and its config.json says image_size [64, 24]" in str(failure.value)
    assert failure.value.fix == "correct config.json, or get the file again"


@pytest.mark.parametrize(
    ("name", "tensor", "shape"),
    [
        ("vit", "vit.embeddings.patch_embeddings.projection.weight", (24, 3, 48)),
        ("vit", "vit.embeddings.patch_embeddings.projection.weight", (24, 3, 0, 6)),
        ("vit", "vit.embeddings.position_embeddings", (9, 24)),
        ("registers", "dinov2_with_registers.embeddings.register_tokens", (3, 24)),
        ("siglip-vision", "embeddings.position_embedding.weight", (1, 4, 24)),
    ],
)
def test_a_tensor_of_other_axes_is_refused_by_name(
    name: str, tensor: str, shape: tuple[int, ...], change: Change
) -> None:
    with pytest.raises(CheckpointError) as failure:
        load(change(name, lambda tensors: {**tensors, tensor: np.zeros(shape, np.float32)}))
    assert f"{tensor} has the shape {shape}; expected" in str(failure.value)


@pytest.mark.parametrize(
    ("name", "tensor", "shape"),
    [
        ("vit", "vit.embeddings.cls_token", (2, 1, 24)),
        ("deit-teacher", "distillation_classifier.bias", (1,)),
        ("dinov2", "dinov2.encoder.layer.0.mlp.weights_in.bias", (129,)),
        ("siglip-vision", "head.attention.in_proj_weight", (73, 24)),
    ],
)
def test_a_tensor_that_cannot_be_taken_apart_is_listed(
    name: str, tensor: str, shape: tuple[int, ...], change: Change
) -> None:
    with pytest.raises(CheckpointError) as failure:
        load(change(name, lambda tensors: {**tensors, tensor: np.zeros(shape, np.float32)}))
    assert f"{tensor} {shape}" in str(failure.value)


@pytest.mark.parametrize(
    "document",
    [
        {"id2label": ["a"]},
        {"id2label": {"a": "b"}},
        {"image_size": "large"},
        {"image_size": [16, 24, 3]},
        {"image_size": -16},
        {"patch_size": 0},
        {"num_attention_heads": 5},
        {"layer_norm_eps": "small"},
        {"layer_norm_eps": 2},
        {"vision_config": 3},
        {"vision_config": [["hidden_size", 24]]},
        {"num_attention_heads": [3]},
    ],
)
def test_a_config_of_impossible_values_is_a_clear_error(document: Mapping[str, Any], change: Change) -> None:
    with pytest.raises((CheckpointError, ConfigError)) as failure:
        load(change("vit", config=document))
    assert failure.value.fix


def test_a_config_that_is_no_json_is_a_clear_error(change: Change) -> None:
    folder = change("vit")
    (folder / "config.json").write_text('{"model_type": "vit",')
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
        load(folder)


def test_pixels_that_no_patch_covers_are_left_out_and_said(change: Change) -> None:
    checkpoint = load(change("siglip-vision", config={"image_size": 19}))
    assert checkpoint.config.image_size == (16, 16)
    assert "all but 16x16 of 19x19 pixels" in assumptions(checkpoint)


def test_clips_second_config_of_the_same_counts(change: Change) -> None:
    second = json.loads((TARGET / "clip" / "config.json").read_text())["vision_config"]
    checkpoint = load(change("clip", config={"vision_config": {"hidden_size": 5}, "vision_config_dict": second}))
    assert checkpoint.config.num_heads == 3


def test_where_the_preprocessing_is_from_is_recorded() -> None:
    assert load(TARGET / "vit").provenance[0].facts["preprocessing"] == "recorded beside it"
    assert load(TARGET / "clip-vision").provenance[0].facts["preprocessing"] == "that of transformers' CLIP models"


@pytest.mark.parametrize("field", ["num_attention_heads", "layer_norm_eps"])
def test_what_shapes_do_not_tell_may_not_be_null(field: str, tmp_path: Path) -> None:
    folder = shutil.copytree(TARGET / "vit", tmp_path / "vit")
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**document, field: None}))
    with pytest.raises(ConfigError, match="is None; expected"):
        load(folder)


def test_a_config_that_leaves_things_out_means_the_programs_own(change: Change) -> None:
    left_out = dict.fromkeys(("num_attention_heads", "layer_norm_eps", "hidden_act", "qkv_bias"))
    siglip = load(change("siglip-vision", config=left_out))
    assert (siglip.config.num_heads, siglip.config.epsilon) == (12, 1e-6)
    assert siglip.config.activation is Activation.GELU_TANH
    assert assumptions(siglip) == ""
    vit = load(change("vit", config=left_out)).config
    assert (vit.num_heads, vit.epsilon, vit.activation) == (12, 1e-12, Activation.GELU)


def test_buffers_of_older_versions_are_left_out(change: Change) -> None:
    def with_buffers(tensors: Tensors) -> Tensors:
        ids = np.arange(5, dtype=np.float32)[None]
        return {**tensors, "vision_model.embeddings.position_ids": ids, "text_model.embeddings.position_ids": ids}

    checkpoint = load(change("clip", with_buffers))
    images, answer = expected_of("clip")
    assert deviation(forward(checkpoint, images), answer) < LIMIT
    assert "position ids" in assumptions(checkpoint)


def test_a_headless_model_can_be_pooled_as_one_asks() -> None:
    images, tokens = expected_of("vit-model")
    pooled = forward(load(TARGET / "vit-model", config={"pooling": "cls"}), images)
    assert deviation(pooled, tokens[:, 0]) < LIMIT
