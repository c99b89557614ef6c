"""Folders of trainings and of hubs: the obvious file is taken and named, and what is none is told with what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import timm_families

from tests.checkpoints import state_dicts
from tests.checkpoints.torch_writer import write_zip
from vit_deploy import checkpoints
from vit_deploy.errors import CheckpointError

GOLDEN = Path(timm_families.__file__).parent / "golden" / "timm" / "plain"
STATED = {"num_heads": 3, "image_size": [24, 32]}


@pytest.fixture(scope="module")
def timm() -> dict[str, Any]:
    return dict(state_dicts.read(GOLDEN / "model.safetensors"))


def put(folder: Path, tensors: dict[str, Any], *names: str) -> None:
    """Files with these weights; those whose name has no mark of being the one hold other numbers."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            state_dicts.write(path, tensors)
        else:
            write_zip(path, {"state_dict": tensors, "epoch": 1})


def wrong(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor + 1 for name, tensor in tensors.items()}


RUNS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "timm": (
        "model_best.pth.tar",
        ("last.pth.tar", "checkpoint-1.pth.tar", "checkpoint-2.pth.tar"),
        "the best of the run, not checkpoint-1.pth.tar, checkpoint-2.pth.tar, last.pth.tar",
    ),
    "lightning": ("lightning_logs/version_0/checkpoints/epoch=3-step=400.ckpt", (), ""),
    "lightning, last": (
        "checkpoints/last.ckpt",
        ("checkpoints/epoch=1.ckpt", "checkpoints/epoch=2.ckpt"),
        "the last of the",
    ),
    "trainer": ("checkpoint-500/model.safetensors", (), ""),
    "trainer, saved": ("model.safetensors", ("checkpoint-500/model.safetensors", "checkpoint-9/model.safetensors"), ""),
    "mmpretrain": (
        "best_accuracy_top1_epoch_98.pth",
        ("epoch_99.pth", "epoch_100.pth"),
        "the best of the run, not epoch_100.pth, epoch_99.pth",
    ),
    "weights": ("weights/best.pt", ("weights/last.pt",), "the best of the run, not last.pt"),
}


@pytest.mark.parametrize("run", RUNS)
def test_the_obvious_file_of_a_run_is_taken_and_named(run: str, timm: dict[str, Any], tmp_path: Path) -> None:
    taken, others, said = RUNS[run]
    put(tmp_path, timm, taken)
    put(tmp_path, wrong(timm), *others)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        (tmp_path / Path(taken).parent / name).write_bytes(b"not read")
    (tmp_path / "args.yaml").write_text("model: vit")
    found = checkpoints.load(tmp_path, config=STATED)
    assert found.digest() == checkpoints.load(GOLDEN).digest()
    assert (f"taken: {taken}, {said}" in checkpoints.assumptions(found)) == bool(said)
    assert [sentence.value for sentence in checkpoints.assumed(found.provenance) if sentence.field == "file"] == [
        taken
    ] * bool(said)


def test_the_file_that_a_run_points_to_is_taken(timm: dict[str, Any], tmp_path: Path) -> None:
    put(tmp_path, timm, "epoch_12.pth")
    put(tmp_path, wrong(timm), "epoch_11.pth")
    (tmp_path / "last_checkpoint").write_text("/home/somebody/work_dirs/vit/epoch_12.pth")
    found = checkpoints.load(tmp_path, config=STATED)
    assert found.digest() == checkpoints.load(GOLDEN).digest()
    assert "taken: epoch_12.pth, the last of the run, not epoch_11.pth" in checkpoints.assumptions(found)


def test_the_folder_that_the_trainer_calls_the_best_is_taken(timm: dict[str, Any], tmp_path: Path) -> None:
    put(tmp_path, timm, "checkpoint-500/model.safetensors")
    put(tmp_path, wrong(timm), "checkpoint-1000/model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(tmp_path, config=STATED)
    assert "is a folder that holds several folders of checkpoints" in caught.value.message
    assert caught.value.fix == "give one of checkpoint-1000, checkpoint-500"
    (tmp_path / "checkpoint-1000" / "trainer_state.json").write_text(
        '{"best_model_checkpoint": "./out/checkpoint-500"}'
    )
    found = checkpoints.load(tmp_path, config=STATED)
    assert found.digest() == checkpoints.load(GOLDEN).digest()
    said = "taken: checkpoint-500/model.safetensors, the best of the run, not checkpoint-1000"
    assert said in checkpoints.assumptions(found)


def test_several_files_of_which_none_is_obvious_are_listed(timm: dict[str, Any], tmp_path: Path) -> None:
    put(tmp_path, timm, "checkpoint0020.pth", "checkpoint0040.pth")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(tmp_path, config=STATED)
    assert caught.value.fix == "give the file: checkpoint0020.pth, checkpoint0040.pth"


def test_archives_beside_weights_are_none(timm: dict[str, Any], tmp_path: Path) -> None:
    put(tmp_path, timm, "net.pth")
    (tmp_path / "images.tar").write_bytes(b"not read")
    (tmp_path / "code.tar.gz").write_bytes(b"not read")
    assert checkpoints.load(tmp_path, config=STATED).digest() == checkpoints.load(GOLDEN).digest()


def cache(folder: Path, tensors: dict[str, Any], *revisions: str, main: str = "") -> Path:
    model = folder / "models--somebody--vit"
    for revision in revisions:
        put(model, tensors if revision == (main or revisions[0]) else wrong(tensors), f"blobs/{revision}.safetensors")
        snapshot = model / "snapshots" / revision
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").symlink_to(f"../../blobs/{revision}.safetensors")
        (snapshot / "config.json").write_text((GOLDEN / "config.json").read_text())
    if main:
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text(main)
    return model


def test_the_cache_of_a_hub_leads_to_its_revision(timm: dict[str, Any], tmp_path: Path) -> None:
    expected = checkpoints.load(GOLDEN)
    model = cache(tmp_path / "one", timm, "abc")
    for folder in (model, tmp_path / "one"):
        found = checkpoints.load(folder)
        assert (found.digest(), found.config) == (expected.digest(), expected.config)
    found = checkpoints.load(cache(tmp_path / "two", timm, "abc", "def", main="def"))
    assert found.digest() == expected.digest()
    assert "taken: snapshots/def/model.safetensors, the revision main, not abc" in checkpoints.assumptions(found)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(cache(tmp_path / "three", timm, "abc", "def"))
    assert "holds several revisions" in caught.value.message
    assert caught.value.fix == "give one of snapshots/abc, snapshots/def"


PIECES = {
    "global_step500/zero_pp_rank_0_mp_rank_00_optim_states.pt": "DeepSpeed's checkpoint, whose weights are in pieces",
    "zero_pp_rank_0_mp_rank_00_model_states.pt": "DeepSpeed's checkpoint, whose weights are in pieces (zero_pp_rank_0",
    "pytorch_model_fsdp_0/__0_0.distcp": "a distributed checkpoint of PyTorch (FSDP)",
    "__0_0.distcp": "a distributed checkpoint of PyTorch (FSDP)",
    "flax_model.msgpack": "weights of Flax (flax_model.msgpack)",
    "tf_model.h5": "weights of TensorFlow (tf_model.h5)",
    "model.ckpt.index": "weights of TensorFlow (model.ckpt.index)",
    "model-q4.gguf": "a GGUF file, whose weights are quantized for llama.cpp",
}


@pytest.mark.parametrize("name", PIECES)
def test_a_folder_without_a_whole_model_says_what_it_holds(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"\x80\x02}.")
    (tmp_path / "rng_state_0.pth").write_bytes(b"PK\3\4")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(tmp_path)
    assert f"{tmp_path} holds {PIECES[name]}" in caught.value.message
    assert caught.value.fix


def test_links_that_go_round_end(timm: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "checkpoints").symlink_to(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoints.load(tmp_path)


FILES: dict[str, tuple[bytes, str, str]] = {
    "a.pth": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "is a pointer of git-lfs",
        "git lfs pull",
    ),
    "b.pth": (b"\n<!DOCTYPE html><html><head>404</head></html>", "is a web page", "/resolve/main/"),
    "c.bin": (b"<html><body>Sign in</body></html>", "is a web page", "/resolve/main/"),
    "d.safetensors": (b'{"error": "Repository not found"}', "is a text of JSON", "the folder"),
    "e.tar": (b"a" * 257 + b"ustar\0" + b"0" * 300, "is a tar archive", "unpack it"),
    "f.pth.tar": (b"\x1f\x8b\x08" + b"0" * 300, "is a packed archive", "unpack it"),
    "flax_model.msgpack": (b"\x81\xa6params", "holds weights of Flax", "from_flax"),
    "vit.ckpt.index": (b"\0" * 40, "a part of a checkpoint of TensorFlow", "save the model"),
    "vit.ckpt.data-00000-of-00001": (b"\0" * 40, "a part of a checkpoint of TensorFlow", "save the model"),
    "h.pth": (b"\xef\xbb\xbf<!doctype html>", "is a web page", "/resolve/main/"),
    "g.gguf": (b"GGUF\3\0\0\0", "is a GGUF file", "made of"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_none_of_weights_says_what_it_is(name: str, tmp_path: Path) -> None:
    data, said, fix = FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(tmp_path / name)
    assert f"{tmp_path / name} {said}" in caught.value.message or said in caught.value.message
    assert fix in caught.value.fix


ONE = np.ones((4, 3), np.float32)
CONTENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an optimizer": (
        {"state": {0: {"exp_avg": ONE, "step": ONE[0]}}, "param_groups": [{"lr": 0.1}]},
        "the state of an optimizer and no model",
        "the file of the model",
    ),
    "a head": ({"fc.weight": ONE, "fc.bias": ONE[:, 0]}, "a head alone, from 3 features to 4 classes", "--head"),
    "a flat parameter": ({"_flat_param": ONE[0], "x": ONE}, "pieces of the weights of a training", "whole state dict"),
    "bitsandbytes": (
        {"blocks.0.attn.qkv.SCB": ONE[0]},
        "quantized by bitsandbytes (blocks.0.attn",
        "quantize",
    ),
    "four bits": ({"blocks.0.mlp.fc1.weight.absmax": ONE[0]}, "quantized by bitsandbytes", "quantize"),
    "gptq": ({"blocks.0.mlp.fc1.qweight": ONE}, "quantized by GPTQ or AWQ", "quantize"),
    "torch": ({"blocks.0.mlp.fc1._packed_params.dtype": ONE}, "quantized by PyTorch's own quantization", "quantize"),
    "torchao": ({"blocks.0.mlp.fc1.weight:_data": ONE}, "quantized by torchao", "quantize"),
    "torchao since 0.15": ({"blocks.0.mlp.fc1._weight_qdata": ONE}, "quantized by torchao", "quantize"),
    "quanto": ({"blocks.0.mlp.fc1.weight._data": ONE}, "quantized by optimum-quanto", "quantize"),
}


def test_a_model_whose_tensors_are_elsewhere_is_refused(timm: dict[str, Any], tmp_path: Path) -> None:
    held = {"module": {name: np.zeros(0, np.float32) for name in timm}, "ds_version": "0.14"}
    with pytest.raises(CheckpointError, match=r"32 of its 32 tensors are empty, as where each device .* \(0,\)\)"):
        checkpoints.load(write_zip(tmp_path / "mp_rank_00_model_states.pt", held), config=STATED)


@pytest.mark.parametrize("case", CONTENTS)
def test_tensors_of_no_model_say_what_they_are(case: str, timm: dict[str, Any], tmp_path: Path) -> None:
    held, said, fix = CONTENTS[case]
    beside = timm if "quantized" in said else {}
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(write_zip(tmp_path / "a.pth", beside | held), config=STATED)
    assert said in caught.value.message
    assert fix in caught.value.fix
