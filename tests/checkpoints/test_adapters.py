"""LoRA adapters are merged as PEFT merges them, or refused; none is left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.checkpoints.huggingface_folders import LIMIT, deviation
from tests.checkpoints.state_dicts import read, write
from tests.checkpoints.torch_writer import write_zip
from tests.peers import make_adapter_golden
from tests.peers.make_adapter_golden import BASES, CASES, TARGET
from vit_deploy.checkpoints import assumptions, load
from vit_deploy.checkpoints.adapters.config import lora_config
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError

BESIDE = [name for name, case in CASES.items() if not case.whole]


def expected(name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    with np.load(TARGET / name / "expected.npz") as file:
        return file["images"], file["answer"]


def together(name: str, folder: Path) -> Path:
    """A folder that holds a base model and its adapter."""
    target = shutil.copytree(BASES / CASES[name].base, folder / "together")
    for file in (TARGET / name).glob("adapter_*"):
        shutil.copy(file, target)
    return target


def off(checkpoint: Checkpoint, name: str) -> float:
    images, answer = expected(name)
    return deviation(forward(checkpoint, images), answer)


@pytest.mark.parametrize("name", BESIDE)
def test_a_base_model_with_its_adapter_answers_as_peft_does(name: str, tmp_path: Path) -> None:
    base = BASES / CASES[name].base
    assert off(load(base), name) > 0.01  # without it the answer is another
    merged = load(base, config={"adapter": TARGET / name})
    assert off(merged, name) < LIMIT
    assert f"merged: the adapter {name} of " in assumptions(merged)
    beside = load(together(name, tmp_path))
    assert off(beside, name) < LIMIT
    assert "merged: the adapter adapter_model.safetensors of " in assumptions(beside)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.whole])
def test_a_model_saved_with_its_adapter_inside_is_merged(name: str) -> None:
    assert off(load(TARGET / name), name) < LIMIT


def test_a_training_that_saved_its_adapter_inside_is_merged(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    folder = shutil.copytree(TARGET / "timm-whole", tmp_path / "run", ignore=shutil.ignore_patterns("*.safetensors"))
    state = {
        name: torch.from_numpy(tensor.copy()) for name, tensor in read(TARGET / "timm-whole/model.safetensors").items()
    }
    torch.save({"state_dict": state, "epoch": 3}, folder / "checkpoint.pth")
    assert off(load(folder / "checkpoint.pth"), "timm-whole") < LIMIT


def test_a_model_with_an_adapter_inside_and_nothing_that_says_how_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(TARGET / "timm-whole", tmp_path / "whole")
    (folder / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match="it holds an adapter that is not merged") as caught:
        load(folder)
    assert "merge_and_unload()" in caught.value.fix
    with pytest.raises(CheckpointError, match="an adapter is given, and the file holds one already"):
        load(TARGET / "timm-whole", config={"adapter": TARGET / "timm"})


def test_an_adapter_beside_its_model_is_never_left_out(tmp_path: Path) -> None:
    folder = together("timm", tmp_path)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"an adapter lies beside it \(adapter_model\.safetensors\)") as caught:
        load(folder)
    assert "take the adapter out" in caught.value.fix


def test_matrices_of_other_programs_are_never_left_out(tmp_path: Path) -> None:
    tensors = dict(read(BASES / "timm/plain/model.safetensors"))
    tensors["blocks.0.attn.qkv.lora_A"] = np.ones((2, 12), np.float32)
    tensors["blocks.0.attn.qkv.lora_B"] = np.ones((36, 2), np.float32)
    with pytest.raises(
        CheckpointError, match=r"an adapter that is not merged \(blocks\.0\.attn\.qkv\.lora_A\)"
    ) as caught:
        load(write(tmp_path / "loralib.safetensors", tensors), config={"num_heads": 3, "image_size": [24, 32]})
    assert "merge" in caught.value.fix


@pytest.mark.parametrize("name", ["blocks.0.attn.qkv.lora_A", "lora_A.weight", "blocks.0.attn.qkv.base_layer.weight"])
def test_an_adapter_under_another_key_is_never_left_out(name: str, tmp_path: Path) -> None:
    state = dict(read(BASES / "timm/plain/model.safetensors"))
    held = {"model": state, "lora": {name: np.ones((2, 12), np.float32)}, "epoch": 1}
    stated = {"num_heads": 3, "image_size": [24, 32]}
    path = write_zip(tmp_path / "a.pth", held)
    with pytest.raises(CheckpointError, match=rf"an adapter that is not merged \(lora\.{name}\)") as caught:
        load(path, config=stated)
    assert "merge_and_unload()" in caught.value.fix and "--ignore" in caught.value.fix
    assert load(path, config={**stated, "ignore": ["lora.*"]}).config.num_layers == 2


def test_a_layer_whose_matrices_are_gone_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(TARGET / "timm-whole", tmp_path / "whole")
    tensors = {
        name: tensor
        for name, tensor in read(folder / "model.safetensors").items()
        if ".blocks.1.attn.qkv.lora_" not in name
    }
    write(folder / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match="it holds 2 layers with adapters, and LoRA matrices for 1 of them"):
        load(folder)


@pytest.mark.parametrize("file", ["", "adapter_model.safetensors"])
def test_an_adapter_alone_asks_for_its_base_model(file: str, tmp_path: Path) -> None:
    for path in (TARGET / "vit").glob("adapter_*"):
        shutil.copy(path, tmp_path)
    with pytest.raises(CheckpointError, match="it is an adapter, without its base model") as caught:
        load(tmp_path / file)
    assert "--adapter FOLDER" in caught.value.fix


def test_an_adapter_for_another_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"the adapter is for another model: it has .*qkv\.lora_A"):
        load(BASES / "huggingface" / "vit", config={"adapter": TARGET / "timm"})
    with pytest.raises(CheckpointError, match="holds no adapter: neither adapter_model"):
        load(BASES / "huggingface" / "vit", config={"adapter": BASES / "huggingface" / "vit"})
    with pytest.raises(CheckpointError, match="adapter is 3; expected a folder"):
        load(BASES / "huggingface" / "vit", config={"adapter": 3})


def test_matrices_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    folder = together("timm", tmp_path)
    tensors = dict(read(folder / "adapter_model.safetensors"))
    tensors["base_model.model.blocks.0.attn.qkv.lora_B.weight"] = np.ones((35, 3), np.float32)
    write(folder / "adapter_model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=r"lora_B\.weight \(35, 3\) make no product for a weight of the shape"):
        load(folder)
    del tensors["base_model.model.blocks.0.attn.qkv.lora_B.weight"]
    write(folder / "adapter_model.safetensors", tensors)
    with pytest.raises(CheckpointError, match="tensors that no pair of matrices explains"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "LOHA"}, "peft_type 'LOHA'; expected LORA"),
        ({"use_bdlora": {"blocks": 2}}, "use_bdlora {'blocks': 2}"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"option_of_tomorrow": 2}, "option_of_tomorrow 2"),
        ({"lora_alpha": "much"}, "adapter_config.json is damaged"),
        ({"alpha_pattern": {"(": 2}}, "is no pattern"),
        ({"alpha_pattern": {"(a+)+$": 2}}, "repeats more than names of modules need"),
        ({"alpha_pattern": {".*.*.*.*.*x": 2}}, "repeats more than names of modules need"),
        ({"alpha_pattern": [1]}, "adapter_config.json is damaged"),
    ],
)
def test_an_adapter_that_is_more_than_a_sum_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = together("vit", tmp_path)
    document = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(document | change))
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert said in caught.value.message


def test_the_scale_is_that_of_the_module() -> None:
    config = lora_config({"peft_type": "LORA", "lora_alpha": 6, "alpha_pattern": {"fc1": 3, r"layers.1.*q_proj": 9}})
    assert config.scale("vit.layers.0.mlp.fc1", 2) == 1.5
    assert config.scale("vit.layers.1.attention.q_proj", 3) == 3
    assert config.scale("vit.layers.0.attention.q_proj", 3) == 2
    stable = lora_config({"peft_type": "LORA", "lora_alpha": 6, "use_rslora": True})
    assert stable.scale("fc1", 4) == 3


@pytest.mark.peers
@pytest.mark.parametrize("name", CASES)
def test_an_adapter_that_peft_saves_now_is_merged_as_peft_does(name: str, timm: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    case = CASES[name]
    wrapped, images = make_adapter_golden.adapted(peft, timm, case)
    make_adapter_golden.save(wrapped, case, tmp_path)
    if case.said:
        wrapped = peft.PeftModel.from_pretrained(make_adapter_golden.base_model(timm, case.base)[0], tmp_path).eval()
    theirs = make_adapter_golden.answer(wrapped, case.base, images)
    merged = load(tmp_path) if case.whole else load(BASES / case.base, config={"adapter": tmp_path})
    assert deviation(forward(merged, images), theirs) < LIMIT
