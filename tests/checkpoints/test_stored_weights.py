"""Weights that are stored otherwise and mean the same: floats of eight bits, scales beside them, MLX's kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from peers import timm_families

from tests.checkpoints import state_dicts
from tests.checkpoints.torch_writer import write_zip
from vit_deploy import checkpoints
from vit_deploy.checkpoints.containers.floats import eighth
from vit_deploy.checkpoints.containers.safetensors_file import write_safetensors
from vit_deploy.errors import CheckpointError

GOLDEN = Path(timm_families.__file__).parent / "golden" / "timm" / "plain"
STATED = {"num_heads": 3, "image_size": [24, 32]}
NAME = "blocks.0.attn.proj.weight"  # (12, 12)
CANONICAL = "block_0.attention.out.kernel"


@pytest.fixture(scope="module")
def timm() -> dict[str, NDArray[Any]]:
    return state_dicts.read(GOLDEN / "model.safetensors")


def write(path: Path, tensors: dict[str, NDArray[Any]], eight: dict[str, str]) -> Path:
    """A safetensors file in which bytes stand for floats of eight bits."""
    header, data = {}, b""
    for name, tensor in tensors.items():
        values = np.ascontiguousarray(tensor, np.uint8 if name in eight else np.float32)
        spans = [len(data), len(data) + values.nbytes]
        header[name] = {"dtype": eight.get(name, "F32"), "shape": list(values.shape), "data_offsets": spans}
        data += values.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


BITS = np.random.default_rng(0).integers(0, 0x7C, (12, 12)).astype(np.uint8)
SCALES: dict[str, tuple[str, NDArray[Any], NDArray[Any]]] = {
    "none": ("", np.ones(1), np.ones((1, 1))),
    "one for all": (".weight_scale", np.float32([0.5]), np.float32([[0.5]])),
    "a number": (".scale_weight", np.float32(0.25), np.float32([[0.25]])),
    "one a row": (".weight_scale", np.arange(1, 13, dtype=np.float32), np.arange(1, 13, dtype=np.float32)[:, None]),
    "a column": (".weight_scale", np.arange(1, 13)[:, None] / 7, (np.arange(1, 13)[:, None] / 7).astype(np.float32)),
    "blocks": (".weight_scale_inv", np.float32([[3]]), np.float32([[3]])),
}


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
@pytest.mark.parametrize("case", SCALES)
def test_floats_of_eight_bits_are_read_with_their_scales(
    case: str, dtype: str, timm: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    suffix, scale, spread = SCALES[case]
    tensors = timm | {NAME: BITS} | ({NAME.removesuffix(".weight") + suffix: scale} if suffix else {})
    found = checkpoints.load(write(tmp_path / "a.safetensors", tensors, {NAME: dtype}), config=STATED)
    plain = eighth(BITS, {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}[dtype])
    np.testing.assert_array_equal(found.weights[CANONICAL], (plain * spread).astype(np.float32).T)


def test_blocks_have_a_scale_each(timm: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 0x7C, (300, 12)).astype(np.uint8)
    scale = np.float32([[1], [2], [4]])
    tensors: dict[str, NDArray[Any]] = timm | {"head.weight": bits, "head.bias": np.zeros(300)}
    tensors |= {"head.weight_scale_inv": scale}
    found = checkpoints.load(write(tmp_path / "a.safetensors", tensors, {"head.weight": "F8_E4M3"}), config=STATED)
    expected = eighth(bits, "float8_e4m3fn") * np.repeat(np.float32([1, 2, 4]), 128)[:300, None]
    np.testing.assert_array_equal(found.weights["head.kernel"], expected.T)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".weight_scale", "has a scale of the shape (5,); expected one for all, one a row"),
        (".input_scale", "its activations are quantized too, by blocks.0.attn.proj.input_scale"),
    ],
)
def test_scales_that_cannot_be_told_are_refused(
    name: str, said: str, timm: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    tensors = timm | {NAME: BITS, NAME.removesuffix(".weight") + name: np.ones(5)}
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(write(tmp_path / "a.safetensors", tensors, {NAME: "F8_E4M3"}), config=STATED)
    assert said in caught.value.message


def test_scales_of_whole_numbers_are_refused(timm: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    tensors = timm | {NAME: BITS, NAME.removesuffix(".weight") + ".weight_scale": np.ones(12)}
    with pytest.raises(CheckpointError, match="quantized by a library that keeps scales beside whole numbers"):
        checkpoints.load(write(tmp_path / "a.safetensors", tensors, {NAME: "I8"}), config=STATED)


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
def test_kernels_of_mlx_have_their_channels_last(
    suffix: str, prefix: str, timm: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    stem = "patch_embed.proj.weight"
    tensors = {prefix + name: value for name, value in (timm | {stem: timm[stem].transpose(0, 2, 3, 1)}).items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez(path, **tensors)  # type: ignore[arg-type]
    elif suffix == ".pth":
        write_zip(path, {"state_dict": tensors})
    else:
        write_safetensors(
            path, {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, {"format": "mlx"}
        )
    assert checkpoints.load(path, config=STATED).digest() == checkpoints.load(GOLDEN).digest()


def test_weights_that_mlx_has_quantized_are_refused(timm: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    tensors = timm | {"blocks.0.attn.proj.scales": np.ones((12, 1)), "blocks.0.attn.proj.biases": np.ones((12, 1))}
    with pytest.raises(CheckpointError, match="its weights are quantized by MLX"):
        checkpoints.load(state_dicts.write(tmp_path / "a.safetensors", tensors), config=STATED)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_torchs_floats_of_eight_bits_with_scales(name: str, timm: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = {key: torch.from_numpy(tensor.copy()) for key, tensor in timm.items()}
    weight = tensors[NAME]
    scale = weight.abs().max() / 100
    eight = (weight / scale).to(getattr(torch, name))
    tensors |= {NAME: eight, NAME.removesuffix(".weight") + ".weight_scale": scale}
    torch.save({"model": tensors}, tmp_path / "a.pth")
    found = checkpoints.load(tmp_path / "a.pth", config=STATED)
    expected = (eight.double() * scale.double()).float().numpy()
    np.testing.assert_array_equal(found.weights[CANONICAL], expected.T)


def test_pruned_weights_are_read_with_their_masks(timm: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    mask = (np.arange(144).reshape(12, 12) % 3 > 0).astype(np.float32)
    state = {name: tensor for name, tensor in timm.items() if name != NAME}
    state |= {f"{NAME}_orig": timm[NAME], f"{NAME}_mask": mask}
    found = checkpoints.load(write_zip(tmp_path / "a.pth", {"state_dict": state}), config=STATED)
    np.testing.assert_array_equal(found.weights[CANONICAL], (timm[NAME] * mask).T)


def test_a_mask_of_another_shape_is_unexpected(timm: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in timm.items() if name != NAME}
    state |= {f"{NAME}_orig": timm[NAME], f"{NAME}_mask": np.ones((12, 1), np.float32)}
    with pytest.raises(CheckpointError, match=r"missing block_0\.attention\.out\.kernel"):
        checkpoints.load(write_zip(tmp_path / "a.pth", state), config=STATED)


def test_a_weight_that_is_computed_from_others_says_how_to_save_it(
    timm: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    state = {name: tensor for name, tensor in timm.items() if name != NAME}
    state["blocks.0.attn.proj.parametrizations.weight.original"] = timm[NAME]
    with pytest.raises(CheckpointError, match="a weight that torch computes from others") as caught:
        checkpoints.load(write_zip(tmp_path / "a.pth", state), config=STATED)
    assert "remove_parametrizations" in caught.value.fix
