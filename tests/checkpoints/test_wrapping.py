"""Models in the wrapping that trainings leave them in: keys, prefixes, copies, companions, heads."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints import state_dicts
from tests.checkpoints.torch_writer import write_legacy, write_zip
from tests.checkpoints.wrapped import GOLDEN, HF, STATED, Tensors, expected, other, split, with_prefix
from vit_deploy import checkpoints
from vit_deploy.checkpoints.containers.safetensors_file import open_safetensors
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError, ConfigError

PREFIXES = (
    *("", "module.", "_orig_mod.", "model.", "net.", "encoder.", "backbone.", "teacher.", "student.", "base_encoder."),
    *("module._orig_mod.", "model.model.", "my_own.wrapper."),
)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("key", ["", "state_dict", "model", "model_state_dict", "weights", "net_state", "whatever"])
def test_any_prefix_under_any_key(prefix: str, key: str, plain: Tensors, vit: Tensors, tmp_path: Path) -> None:
    for tensors, stated, name in ((plain, STATED, "timm/plain"), (vit, HF, "huggingface/vit")):
        held = with_prefix(prefix, tensors)
        path = write_zip(tmp_path / "a.pth", {key: held, "epoch": 1, "best_acc1": np.float32([7])} if key else held)
        assert checkpoints.load(path, config=stated).digest() == expected(name, tmp_path).digest()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
def test_every_container_of_state_dicts(suffix: str, plain: Tensors, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    held = with_prefix("module.", plain)
    if suffix == ".npz":
        np.savez(path, **held)  # type: ignore[arg-type]
    else:
        (write_zip if suffix == ".pth" else state_dicts.write)(path, held)
    assert checkpoints.load(path, config=STATED).digest() == expected("timm/plain", tmp_path).digest()


def test_a_state_dict_in_nested_dictionaries_is_put_together(plain: Tensors, tmp_path: Path) -> None:
    nested: dict[str, Any] = {}
    for name, tensor in plain.items():
        *path, last = name.split(".")
        here = nested
        for part in path:
            here = here.setdefault(part, {})
        here[last] = tensor
    path = write_legacy(tmp_path / "a.pth", nested)
    assert checkpoints.load(path, config=STATED).digest() == expected("timm/plain", tmp_path).digest()


COPIES: dict[str, tuple[Any, str, list[str]]] = {
    "averaged": (lambda t: {"state_dict": other(t), "state_dict_ema": t}, "state_dict_ema", ["state_dict"]),
    "averaged module": (lambda t: {"model": other(t), "ema": {"module": t}}, "ema.module", ["model"]),
    "best": (lambda t: {"model": other(t), "best_model": t}, "best_model", ["model"]),
    "average": (lambda t: {"net": other(t), "avg_model": t}, "avg_model", ["net"]),
    "teacher": (lambda t: {"student": other(t), "teacher": with_prefix("backbone.", t)}, "teacher", ["student"]),
    "target": (
        lambda t: {"encoder": other(t), "target_encoder": with_prefix("module.", t)},
        "target_encoder",
        ["encoder"],
    ),
    "prefixes": (
        lambda t: {"model": {**with_prefix("student.backbone.", other(t)), **with_prefix("teacher.backbone.", t)}},
        "teacher",
        ["student"],
    ),
    "momentum": (
        lambda t: {
            "state_dict": {
                **with_prefix("module.momentum_encoder.", other(t)),
                **with_prefix("module.base_encoder.", t),
            }
        },
        "base_encoder",
        ["momentum_encoder"],
    ),
    "usual": (lambda t: {"model": other(t), "state_dict": t}, "state_dict", ["model"]),
}


@pytest.mark.parametrize("case", COPIES)
def test_of_several_copies_the_documented_one_is_taken_and_said(case: str, plain: Tensors, tmp_path: Path) -> None:
    wrap, key, others = COPIES[case]
    path = write_zip(tmp_path / "a.pth", wrap(plain))
    found = checkpoints.load(path, config=STATED)
    assert found.digest() == expected("timm/plain", tmp_path).digest()
    facts = found.provenance[-1].facts["weights"]
    assert (facts["key"], facts["others"]) == (key, others)
    assert f"taken: {key}, " in checkpoints.assumptions(found)
    assert "(--weights takes another)" in checkpoints.assumptions(found)
    swapped = checkpoints.load(path, config=STATED | {"weights": others[0]})
    np.testing.assert_allclose(swapped.weights["norm.scale"], found.weights["norm.scale"] + 1)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path, config=STATED | {"weights": "decoder"})
    assert "none of its models is called decoder; they are" in caught.value.message
    assert key in caught.value.message and others[0] in caught.value.message


def test_a_key_for_the_only_model_is_to_be_left_out(plain: Tensors, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", plain)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path, config=STATED | {"weights": "decoder"})
    assert str(caught.value) == (
        f"{path}: none of its models is called decoder: it holds one alone, without a key\n  fix: leave --weights out"
    )


@pytest.mark.parametrize("inside", ["", "backbone."])
def test_a_copy_inside_of_a_model_has_its_own_head(inside: str, plain: Tensors, tmp_path: Path) -> None:
    encoder, head = split(plain)
    raw = {**with_prefix(inside, other(encoder)), **other(head)}
    copy = with_prefix("ema.", {**with_prefix(inside, encoder), **head})
    path = write_zip(tmp_path / "a.pth", {"state_dict": {**raw, **copy}})
    assert checkpoints.load(path, config=STATED).digest() == expected("timm/plain", tmp_path).digest()
    path = write_zip(tmp_path / "b.pth", {"state_dict": {**raw, **with_prefix("ema.", with_prefix(inside, encoder))}})
    assert not checkpoints.load(path, config=STATED).config.include_top  # the other's head is none of this one's
    if inside:
        swapped = checkpoints.load(tmp_path / "a.pth", config=STATED | {"weights": "backbone"})
        np.testing.assert_array_equal(swapped.weights["head.bias"], head["head.bias"] + 1)


def test_models_that_no_rule_tells_apart_are_asked_for(plain: Tensors, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", {"left": plain, "right": other(plain)})
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path, config=STATED)
    assert "it holds several models: left, right" in caught.value.message
    assert "--weights KEY" in caught.value.fix
    wanted = checkpoints.load(path, config=STATED | {"weights": "left"})
    assert wanted.digest() == expected("timm/plain", tmp_path).digest()


def test_a_larger_teacher_is_no_copy(plain: Tensors, tmp_path: Path) -> None:
    larger = plain | {f"blocks.2.{name[9:]}": tensor for name, tensor in plain.items() if name.startswith("blocks.1.")}
    path = write_zip(tmp_path / "a.pth", {**with_prefix("student.", plain), **with_prefix("teacher.", larger)})
    with pytest.raises(CheckpointError, match="it holds several models: student, teacher"):
        checkpoints.load(path, config=STATED)
    assert checkpoints.load(path, config=STATED | {"weights": "student"}).config.num_layers == 2
    assert checkpoints.load(path, config=STATED | {"weights": "teacher"}).config.num_layers == 3


COMPANIONS: dict[str, tuple[str, ...]] = {
    "weights of a loss (criterion.weight, loss_fn.proxies)": ("criterion.weight", "loss_fn.proxies"),
    "metrics (train_acc.correct, metrics.total)": ("train_acc.correct", "metrics.total"),
    "a projection head (projector.0.weight, projector.1.running_mean)": (
        "projector.0.weight",
        "projector.1.running_mean",
    ),
    "counters of a training (head.num_batches_tracked, n_averaged)": ("head.num_batches_tracked", "n_averaged"),
}


@pytest.mark.parametrize("prefix", ["", "model.", "encoder."])
@pytest.mark.parametrize("said", COMPANIONS)
def test_companions_that_are_known_are_left_out_and_named(
    said: str, prefix: str, plain: Tensors, tmp_path: Path
) -> None:
    beside = {name: np.ones(3, np.float32) for name in COMPANIONS[said]}
    path = write_zip(tmp_path / "a.ckpt", {"state_dict": {**with_prefix(prefix, plain), **beside}})
    found = checkpoints.load(path, config=STATED)
    assert found.digest() == expected("timm/plain", tmp_path).digest()
    assert f"left out, for the output does not depend on it: {said}" in checkpoints.assumptions(found)


def test_a_companion_that_is_not_known_is_an_error_that_patterns_mend(plain: Tensors, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", {"state_dict": plain | {"adapter.down.weight": np.ones((3, 4), np.float32)}})
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path, config=STATED)
    assert "unexpected adapter.down.weight (3, 4)" in caught.value.message
    assert "--ignore" in caught.value.fix
    found = checkpoints.load(path, config=STATED | {"ignore": ["*adapter.*"]})
    assert found.digest() == expected("timm/plain", tmp_path).digest()
    assert "what --ignore *adapter.* says" in checkpoints.assumptions(found)
    with pytest.raises(CheckpointError, match=r"--ignore adaptor\.\* is of no tensor"):
        checkpoints.load(path, config=STATED | {"ignore": ["adaptor.*"]})


def test_what_is_ignored_does_not_count_as_a_model(plain: Tensors, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", {"left": plain, "right": other(plain)})
    found = checkpoints.load(path, config=STATED | {"ignore": ["right.*"]})
    assert found.digest() == expected("timm/plain", tmp_path).digest()


@pytest.mark.parametrize("pattern", ["gate.*", "module.gate.*", "model.module.gate.*", "*.gate.w", "w"])
def test_a_pattern_is_for_names_as_messages_have_them(pattern: str, plain: Tensors, tmp_path: Path) -> None:
    held = with_prefix("module.", {**plain, "gate.w": np.ones(3, np.float32)})
    path = write_zip(tmp_path / "a.pth", {"model": held, "epoch": 1})
    found = checkpoints.load(path, config=STATED | {"ignore": pattern})
    assert found.digest() == expected("timm/plain", tmp_path).digest()


def test_options_that_choose_are_refused_where_there_is_nothing_to_choose(plain: Tensors, tmp_path: Path) -> None:
    checkpoints.save(expected("timm/plain", tmp_path), tmp_path / "ours.safetensors")
    with pytest.raises(CheckpointError, match="it holds one model alone, and --weights and --ignore is given"):
        checkpoints.load(tmp_path / "ours.safetensors", config={"weights": "ema", "ignore": ["head.*"]})
    with pytest.raises(ConfigError, match="expected patterns of names"):
        checkpoints.load(tmp_path / "ours.safetensors", config={"ignore": [3]})
    with pytest.raises(ConfigError, match="expected a key in the file"):
        checkpoints.load(tmp_path / "ours.safetensors", config={"weights": 3})


def test_an_adapter_is_merged_into_the_model_that_is_taken(plain: Tensors, tmp_path: Path) -> None:
    write_zip(tmp_path / "base.pth", {"state_dict": other(plain), "state_dict_ema": with_prefix("module.", plain)})
    rng = np.random.default_rng(5)
    down, up = rng.standard_normal((2, 12)).astype(np.float32), rng.standard_normal((36, 2)).astype(np.float32)
    layer = "base_model.model.blocks.0.attn.qkv"
    adapter = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    state_dicts.write(tmp_path / "adapter" / "adapter_model.safetensors", adapter)
    document = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["qkv"]}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(document))
    found = checkpoints.load(tmp_path / "base.pth", config=STATED | {"adapter": tmp_path / "adapter"})
    merged = plain["blocks.0.attn.qkv.weight"] + 2 * up @ down
    np.testing.assert_allclose(found.weights["block_0.attention.query.kernel"], merged[:12].T, rtol=1e-6)
    np.testing.assert_array_equal(found.weights["norm.scale"], plain["norm.weight"])
    assert "taken: state_dict_ema" in checkpoints.assumptions(found)


def test_shards_of_torch_are_one_model(vit: Tensors, tmp_path: Path) -> None:
    names = sorted(vit)
    shards = {f"pytorch_model-0000{number}-of-00002.bin": names[number - 1 :: 2] for number in (1, 2)}
    for file, held in shards.items():
        write_zip(tmp_path / file, {name: vit[name] for name in held})
    index = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_bytes((GOLDEN / "huggingface" / "vit" / "config.json").read_bytes())
    assert checkpoints.load(tmp_path).digest() == expected("huggingface/vit", tmp_path).digest()


@pytest.mark.peers
def test_a_script_with_the_names_of_openai_is_read_as_its_state_dict(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from tests.peers.dialect_models import HEADS
    from tests.peers.make_dialect_golden import EXPECTED, TARGET

    class Module(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x: Any) -> Any:
            return x

    root = Module()
    with open_safetensors(TARGET / "openai-clip" / "model.safetensors") as file:
        numbers = ("input_resolution", "context_length", "vocab_size")
        assert set(numbers) <= set(file.names())
        tensors = {name: file.read(name) for name in file.names() if name not in numbers}
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, Module())
            module = getattr(module, part)
        module.register_parameter(last, torch.nn.Parameter(torch.from_numpy(tensor.copy())))
    for name in numbers:
        root.register_buffer(name, torch.tensor(7))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(root).save(str(tmp_path / "ViT-B-32.pt"))
    with np.load(TARGET / "openai-clip" / EXPECTED) as arrays:
        images, answer = arrays["images"], arrays["answer"]
    sizes = {"num_heads": HEADS, "image_size": list(images.shape[1:3])}
    found = forward(checkpoints.load(tmp_path / "ViT-B-32.pt", config=sizes), images)
    assert np.abs(found - answer).max() < 1e-5 * np.abs(answer).max()
