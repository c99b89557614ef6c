"""State dicts of EVA-02, BEiT, Perception Encoder and AIMv2 in the layouts of their authors' repositories.

No file of theirs is here: recorded weights of timm's are written by the authors' names. That these are theirs is the
word of timm's own conversion, which the tests marked `peers` and the census ask.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.peers import originals
from tests.peers.census import LIMIT, distance
from tests.peers.originals import Sizes, State
from vit_deploy.checkpoints import assumptions, load
from vit_deploy.checkpoints.containers.safetensors_file import open_safetensors, write_safetensors
from vit_deploy.checkpoints.huggingface.aimv2 import computed_positions
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Pooling
from vit_deploy.core.reference import forward
from vit_deploy.core.resampling import bilinear, resample
from vit_deploy.core.resize import Convention, convention_of, resize
from vit_deploy.core.rotary import Rotary, RotaryConvention
from vit_deploy.errors import CheckpointError, ConfigError
from vit_deploy.verification.targets import load_source

GOLDEN = Path(__file__).parents[1] / "peers" / "golden"


def spatial(state: State, sizes: Sizes) -> State:
    """Of PE-Spatial, which has no head."""
    return originals.perception_encoder({k: part for k, part in state.items() if not k.startswith("head.")}, sizes)


Layout = Callable[[State, Sizes], State]
LAYOUTS: Mapping[str, tuple[str, Layout]] = {
    "eva-02": ("eva/eva02", originals.eva_02),
    "eva-02 with norms inside": ("eva/eva02_sub_norms", originals.eva_clip),
    "beit": ("timm/beit", originals.beit),
    "pe core": ("eva/pe", originals.perception_encoder),
    "pe core with texts": ("eva/pe", originals.perception_clip),
    "pe spatial": ("eva/pe_spatial", spatial),
}

needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("timm") is None, reason="needs torch and timm"
)


def state_of(golden: Path) -> State:
    """The tensors of a recorded model of timm's."""
    with open_safetensors(golden / "model.safetensors") as file:
        return {name: file.read(name) for name in file.names()}


def sizes_of(checkpoint: Checkpoint) -> Sizes:
    tokens = checkpoint.config.sequence_length
    return Sizes(checkpoint.config.grid, checkpoint.config.head_dim, np.zeros((tokens, tokens), np.float32))


def rewritten(
    folder: Path, name: str, change: Callable[[State], State] = lambda state: state
) -> tuple[Path, Checkpoint]:
    """A recorded model of timm's, with images that are not square, as its authors keep it, and as timm does."""
    golden, layout = LAYOUTS[name]
    known = load(GOLDEN / golden)
    state = change(layout(state_of(GOLDEN / golden), sizes_of(known)))
    state = {key: np.ascontiguousarray(part) for key, part in state.items()}
    write_safetensors(folder / "model.safetensors", state, {})
    (folder / "config.json").write_text((GOLDEN / golden / "config.json").read_text())
    return folder, known


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_of_its_authors_holds_the_weights_that_timm_has(tmp_path: Path, name: str) -> None:
    folder, known = rewritten(tmp_path, name)
    found = load(folder)
    assert found.config.image_size == known.config.image_size == (24, 32)
    assert found.config.qkv_bias == known.config.qkv_bias
    changes: dict[str, Any] = {}
    without = set()
    if name.startswith("pe"):  # which counts patches, and whose projection has no bias
        changes["rotary"] = Rotary(RotaryConvention.PE)
        without.add("head.bias")
        assert not np.any(found.weights.get("head.bias", 0))
    if name == "pe spatial":
        changes |= {"include_top": False, "num_classes": 0, "pooling": None}
        without.add("head.kernel")
        assert not without & found.weights.keys()
    for weight in known.weights.keys() - without:
        assert np.array_equal(found.weights[weight], known.weights[weight]), weight
    assert found.config == known.config.replace(**changes)


def test_rotary_positions_that_a_file_holds_are_those_of_its_architecture(tmp_path: Path) -> None:
    def turned_otherwise(state: State) -> State:
        return {**state, "rope.freqs_sin": state["rope.freqs_sin"][::-1]}

    folder, _ = rewritten(tmp_path, "eva-02", turned_otherwise)
    with pytest.raises(CheckpointError, match=r"not those of the architecture \(rope\.freqs_sin"):
        load(folder)


def test_rotary_positions_of_16_bits_are_those_of_the_architecture(tmp_path: Path) -> None:
    def rounded(state: State) -> State:
        return {
            name: part.astype(np.float16).astype(np.float32) if "freqs" in name else part
            for name, part in state.items()
        }

    folder, known = rewritten(tmp_path, "eva-02", rounded)
    assert load(folder).config == known.config


def test_perception_encoder_counts_patches_as_its_authors_do(tmp_path: Path) -> None:
    folder, known = rewritten(tmp_path, "pe core with texts")
    found = load(folder)
    assert known.config.rotary == Rotary(RotaryConvention.PE, reference_grid=(14, 14))
    assert found.config.rotary == Rotary(RotaryConvention.PE)
    assert found.config.pooling is Pooling.MAP
    assert "text tower" in assumptions(found)
    assert convention_of(found) is Convention.PE
    larger = resize(found, (48, 32))
    table = found.weights["pos_embed.table"]
    grid = found.config.grid
    expected = resample(table[1:].reshape(*grid, -1), (2 * grid[0], grid[1]), bilinear).reshape(-1, table.shape[1])
    assert np.array_equal(larger.weights["pos_embed.table"][1:], expected)


def test_perception_encoder_without_a_pooling_gives_its_tokens(tmp_path: Path) -> None:
    folder, _ = rewritten(tmp_path, "pe spatial")
    found = load(folder)
    assert found.config.pooling is None
    assert not found.config.last_norm


def aimv2_state() -> State:
    return originals.aimv2(state_of(GOLDEN / "timm" / "aimv2"), Sizes((0, 0), 0))


def test_aimv2_of_its_authors_holds_the_weights_that_timm_has(tmp_path: Path) -> None:
    known = load(GOLDEN / "timm" / "aimv2")
    state = {name: part for name, part in aimv2_state().items() if not name.startswith("head.")}
    write_safetensors(tmp_path / "a.safetensors", state, {})
    stated = {"num_heads": known.config.num_heads, "image_size": list(known.config.image_size)}
    found = load(tmp_path / "a.safetensors", config=stated)
    assert found.config.pooling is None
    for weight in found.weights:
        assert np.array_equal(found.weights[weight], known.weights[weight]), weight
    (tmp_path / "folder").mkdir()
    write_safetensors(tmp_path / "folder" / "model.safetensors", state, {})
    config = known.config
    document = {
        "model_type": "aimv2", "hidden_size": config.embed_dim, "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers, "intermediate_size": config.mlp_dim, "rms_norm_eps": 1e-5,
        "image_size": list(config.image_size), "patch_size": list(config.patch_size), "num_channels": 3,
    }  # fmt: skip
    (tmp_path / "folder" / "config.json").write_text(json.dumps(document))
    assert load(tmp_path / "folder").config == found.config


def test_aimv2_whose_pooling_is_another_function_is_refused(tmp_path: Path) -> None:
    dim = load(GOLDEN / "timm" / "aimv2").config.embed_dim
    state = {name: part for name, part in aimv2_state().items() if not name.startswith("head.")}
    several = {"head.cls_token": np.ones((1, 2, dim), np.float32), "head.bn.running_mean": np.ones(dim, np.float32)}
    write_safetensors(tmp_path / "a.safetensors", {**state, **several}, {})
    with pytest.raises(CheckpointError, match=r"a pooling of several queries .*; a norm over the batch"):
        load(tmp_path / "a.safetensors")


def test_bare_aimv2_has_the_heads_of_its_published_models(tmp_path: Path) -> None:
    config = load(GOLDEN / "timm" / "aimv2").config
    assert config.embed_dim % 128  # so that nothing can be assumed of this one
    state = {name: part for name, part in aimv2_state().items() if not name.startswith("head.")}
    write_safetensors(tmp_path / "a.safetensors", state, {})
    with pytest.raises((CheckpointError, ConfigError), match="nothing says how many heads"):
        load(tmp_path / "a.safetensors", config={"image_size": list(config.image_size)})


def test_aimv2_of_its_authors_for_images_of_any_size_has_the_positions_of_the_size_that_is_asked_for(
    tmp_path: Path,
) -> None:
    state = {name: part for name, part in aimv2_state().items() if not name.startswith(("head.", "preprocessor.pos"))}
    write_safetensors(tmp_path / "a.safetensors", state, {})
    stated = {"num_heads": 2, "image_size": [24, 32]}
    found = load_source(str(tmp_path / "a.safetensors"), {"image_size": (40, 48)}, None, stated=stated).checkpoint
    assert found.config.image_size == (40, 48)
    assert np.array_equal(found.weights["pos_embed.table"], computed_positions(found.config))


@pytest.mark.peers
@needs_timm
@pytest.mark.parametrize("name", ["eva-02 tiny", "pe core"])
def test_what_timm_makes_of_a_file_of_its_authors_is_what_it_answers_here(tmp_path: Path, name: str) -> None:
    import torch

    made = originals.made(name)
    tensors: dict[str, Any] = {key: torch.tensor(np.ascontiguousarray(part)) for key, part in made.state.items()}
    torch.save(tensors, tmp_path / "a.pt")
    assert distance(forward(load(tmp_path / "a.pt"), made.images), made.answer) < LIMIT
