"""Files that `torch.save` wrote, and files that only look as if it had."""

from __future__ import annotations

import collections
import io
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import state_dicts
from peers import timm_families

from tests.checkpoints import torch_writer
from vit_deploy import checkpoints
from vit_deploy.checkpoints.containers.floats import eighth
from vit_deploy.checkpoints.containers.torch_file import open_torch
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError

GOLDEN = Path(timm_families.__file__).parent / "golden" / "timm" / "plain"
STATED = {"num_heads": 3, "image_size": [24, 32]}


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def zip_of(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    """A file in torch's zip format with this pickle in it."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return path


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".pth.tar"])
@pytest.mark.parametrize("write", [torch_writer.write_zip, torch_writer.write_legacy])
def test_no_torch_is_needed(suffix: str, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    tensors = state_dicts.read(GOLDEN / "model.safetensors")
    assert_plain(write(tmp_path / f"a{suffix}", {"state_dict": tensors, "epoch": 1, "lr": 0.1, "done": False}))


def test_views_of_one_storage_are_read_with_their_strides(tmp_path: Path) -> None:
    numbers = np.arange(60, dtype=np.float32)
    views = {
        "turned": torch_writer.View(numbers, (3, 2), (1, 3)),
        "every third": torch_writer.View(numbers, (4, 5), (15, 3), 2),
        "repeated": torch_writer.View(numbers, (3, 4), (0, 1), 7),
        "one": torch_writer.View(numbers, (), (), 59),
        "none": torch_writer.View(numbers, (0, 3), (3, 1)),
    }
    expected = {
        "turned": numbers[:6].reshape(2, 3).T,
        "every third": np.stack([numbers[2 + 15 * row :][:13:3] for row in range(4)]),
        "repeated": np.stack([numbers[7:11]] * 3),
        "one": numbers[59],
        "none": np.zeros((0, 3)),
    }
    for write in (torch_writer.write_zip, torch_writer.write_legacy):
        with open_torch(write(tmp_path / "a.pth", views)) as file:
            for name, values in expected.items():
                found = file.read(name)
                np.testing.assert_array_equal(found, values, name)
                assert (found.dtype, found.flags.c_contiguous or not found.size) == (np.float32, True), name


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def tensors(torch: Any) -> dict[str, Any]:
    arrays = state_dicts.read(GOLDEN / "model.safetensors")
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def assert_plain(path: Path, tolerance: float = 1e-8) -> None:
    images = timm_families.drawn_images(24, 32)
    expected = np.load(GOLDEN / "output.npy")
    found = forward(checkpoints.load(path, config=STATED), images)
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def wrapped(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


LAYOUTS: dict[str, Any] = {
    "itself": lambda t: t,
    "ordered": collections.OrderedDict,
    "state_dict": lambda t: {"epoch": 3, "arch": "vit", "state_dict": t, "optimizer": {"state": {}, "lr": 0.1}},
    "model": lambda t: {"model": t},
    "averaged": lambda t: {"state_dict": {name: 0 * each for name, each in t.items()}, "state_dict_ema": t},
    "model_ema": lambda t: {"model": {name: 0 * each for name, each in t.items()}, "model_ema": t},
    "teacher": lambda t: {"teacher": wrapped(t, "module.backbone."), "epoch": 1},
    "nested": lambda t: {"state_dict": {"model": wrapped(t, "module._orig_mod.")}},
    "parallel": lambda t: wrapped(t, "module."),
}


@pytest.mark.peers
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_state_dict_is_found_where_training_programs_put_it(
    layout: str, is_zip: bool, torch: Any, tensors: dict[str, Any], tmp_path: Path
) -> None:
    torch.save(LAYOUTS[layout](tensors), tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    assert_plain(tmp_path / "a.pth")


@pytest.mark.peers
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float16", 1e-2), ("bfloat16", 1e-1)])
def test_other_floats_become_float32(
    dtype: str, tolerance: float, torch: Any, tensors: dict[str, Any], tmp_path: Path
) -> None:
    torch.save({name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}, tmp_path / "a.pt")
    assert_plain(tmp_path / "a.pt", tolerance)
    for name, weight in checkpoints.load(tmp_path / "a.pt", config=STATED).weights.items():
        assert weight.dtype == np.float32, name


@pytest.mark.peers
def test_a_hub_folder_with_a_torch_file_is_read_with_its_config(
    torch: Any, tensors: dict[str, Any], tmp_path: Path
) -> None:
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((GOLDEN / "config.json").read_bytes())
    checkpoint = checkpoints.load(tmp_path)
    assert checkpoint.config == checkpoints.load(GOLDEN).config
    assert checkpoint.digest() == checkpoints.load(GOLDEN).digest()


@pytest.mark.peers
def test_what_timm_saves_with_torch_is_what_it_saves_with_safetensors(timm: Any, torch: Any, tmp_path: Path) -> None:
    model = timm_families.make(timm, "distilled")
    timm.models.save_for_hf(model, tmp_path / "torch", safe_serialization=False)
    timm.models.save_for_hf(model, tmp_path / "safetensors", safe_serialization=True)
    assert [path.name for path in sorted((tmp_path / "torch").iterdir())] == ["config.json", "pytorch_model.bin"]
    first, second = (checkpoints.load(tmp_path / name) for name in ("torch", "safetensors"))
    assert first.digest() == second.digest()


@pytest.mark.peers
@pytest.mark.parametrize("is_zip", [True, False])
def test_weights_stay_when_the_file_is_replaced(
    is_zip: bool, torch: Any, tensors: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=is_zip)
    checkpoint = checkpoints.load(path, config=STATED)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\0" * size)
    again = checkpoints.Checkpoint(checkpoint.config, dict(checkpoint.weights), checkpoint.preprocess)
    assert again.digest() == checkpoints.load(GOLDEN).digest()


def pickled(torch: Any, value: object, is_zip: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=is_zip)
    return stream.getvalue()


@pytest.mark.peers
@pytest.mark.parametrize("is_zip", [True, False])
def test_no_code_in_a_pickle_ever_runs(is_zip: bool, torch: Any, tensors: dict[str, Any], tmp_path: Path) -> None:
    path, attacked = tmp_path / "a.pth", tmp_path / "attacked"
    for value in (tensors | {"extra": Attack(attacked)}, {"state_dict": tensors, "x": Attack(attacked)}):
        path.write_bytes(pickled(torch, value, is_zip))
        assert_plain(path)
        assert not attacked.exists()
    path.write_bytes(pickled(torch, Attack(attacked), is_zip))
    with pytest.raises(
        CheckpointError, match=r"it holds no tensors by name but a posix\.mkdir, of which nothing was run"
    ):
        checkpoints.load(path, config=STATED)
    assert not attacked.exists()
    torch.load(path, weights_only=False)  # it is an attack indeed
    assert attacked.exists()


@pytest.mark.peers
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("wrap", ["alone", "under a key", "parallel"])
def test_a_whole_pickled_model_is_read_by_the_paths_of_its_modules(
    wrap: str, is_zip: bool, timm: Any, torch: Any, tmp_path: Path
) -> None:
    model = timm_families.make(timm, "plain")
    value = {"alone": model, "under a key": {"model": model, "epoch": 1}, "parallel": torch.nn.DataParallel(model)}[
        wrap
    ]
    torch.save(value, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    assert_plain(tmp_path / "a.pth")


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_of_a_torchscript_archive_the_tensors_are_read(timm: Any, torch: Any, tmp_path: Path) -> None:
    model = timm_families.make(timm, "plain").eval()
    torch.jit.trace(model, torch.zeros(1, 3, 24, 32)).save(str(tmp_path / "a.pt"))
    assert_plain(tmp_path / "a.pt")


@pytest.mark.peers
@pytest.mark.parametrize("is_zip", [True, False])
def test_every_type_of_number_is_that_of_torch(is_zip: bool, torch: Any, tmp_path: Path) -> None:
    base = torch.randn(7, 6) * 3
    floats = ["float64", "float32", "float16", "bfloat16"]
    floats += ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]
    tensors = {name: base.to(getattr(torch, name)).t()[1:] for name in floats}
    torch.save(
        {**tensors, "parameter": torch.nn.Parameter(base)}, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip
    )
    with open_torch(tmp_path / "a.pt") as file:
        assert {name: file.dtype(name) for name in floats} == dict(zip(floats, floats, strict=True))
        for name, tensor in {**tensors, "parameter": base}.items():
            np.testing.assert_array_equal(file.read(name), tensor.float().numpy(), name)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"])
def test_all_floats_of_eight_bits_are_those_of_torch(name: str, torch: Any) -> None:
    bits = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(bits).view(getattr(torch, name)).float().numpy()
    np.testing.assert_array_equal(eighth(bits, name), expected)


@pytest.mark.peers
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_truncated_or_changed_file_is_one_clear_error(
    is_zip: bool, torch: Any, tensors: dict[str, Any], tmp_path: Path
) -> None:
    data = pickled(torch, tensors, is_zip)
    path = tmp_path / "a.pth"
    for length in (2, 20, 300, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"a\.pth"):
            checkpoints.load(path, config=STATED)
    rng = np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(data)
        for place in rng.integers(0, min(len(data), 4000), 3):
            changed[place] = rng.integers(256)
        path.write_bytes(changed)
        try:
            checkpoints.load(path, config=STATED)  # what was changed may be a number
        except CheckpointError as error:
            assert error.fix


@pytest.mark.peers
def test_a_file_that_could_expand_is_refused(torch: Any, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.pth", b"\0" * 1_000_000, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"archive/data\.pkl in it is compressed, which torch never does"):
        checkpoints.load(path)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t, each: each.expand(10**9, 12), "head.weight has the shape (1000000000, 12) and far fewer numbers"),
        (lambda t, each: t.ones(5, 12, dtype=t.int64), "head.weight is int64; expected dense floats"),
        (lambda t, each: t.eye(5, 12).to_sparse(), "head.weight is a sparse tensor; expected dense floats"),
        (
            lambda t, each: t.empty(5, 12, device="meta"),
            "head.weight is a tensor of the device meta, which",
        ),
        (lambda t, each: t.full((5, 12), float("nan")), "head.kernel has 60 values that are NaN or infinite"),
    ],
)
def test_tensors_that_hold_no_plain_numbers_are_refused(
    change: Any, expected: str, torch: Any, tensors: dict[str, Any], tmp_path: Path
) -> None:
    torch.save(tensors | {"head.weight": change(torch, torch.ones(1, 12))}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(tmp_path / "a.pth", config=STATED)
    assert expected in caught.value.message


@pytest.mark.peers
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"epoch": 3, "lr": 0.1}, "it holds no tensors by name but the keys epoch, lr"),
        ([1, 2], "it holds no tensors by name but list"),
        (
            {"state_dict": {"model": {"model": {"model": {"model": {}}}}}},
            "it holds no tensors by name but the keys state_dict",
        ),
    ],
)
def test_a_file_without_tensors_says_what_it_has(value: Any, expected: str, torch: Any, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(tmp_path / "a.pth")
    assert expected in caught.value.message


@pytest.mark.peers
def test_a_plain_pickle_is_no_checkpoint(torch: Any, tmp_path: Path) -> None:
    attack = Attack(tmp_path / "attacked")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "a.pth").write_bytes(pickle.dumps(attack, protocol=protocol))
        with pytest.raises(CheckpointError):
            checkpoints.load(tmp_path / "a.pth")
    assert not attack.folder.exists()


@pytest.mark.peers
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("is_zip", [True, False])
def test_every_protocol_of_pickle_is_read(
    is_zip: bool, protocol: int, torch: Any, tensors: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    value = {"state_dict": tensors, "args": {"path": Path("a"), "set": {1, 2}, "bytes": b"ab"}}
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    assert_plain(path)


def module(name: str, tensors: dict[str, Any], modules: dict[str, Any], **attributes: Any) -> torch_writer.Instance:
    """A module as torch pickles one."""
    parts = {"_parameters": tensors, "_buffers": {}, "_modules": modules, "training": False}
    return torch_writer.Instance(name, parts | attributes)


def model(tensors: dict[str, Any], leaves: dict[str, Any]) -> torch_writer.Instance:
    """A whole pickled model with these tensors; `leaves` are attributes by the path of a module."""
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        here = tree
        for part in path:
            here = here.setdefault(part, {})
        here[last] = tensor

    def made(path: str, held: dict[str, Any]) -> torch_writer.Instance:
        inner = {
            name: made(f"{path}.{name}".lstrip("."), tensor)
            for name, tensor in held.items()
            if isinstance(tensor, dict)
        }
        kind, attributes = leaves.get(path.rpartition(".")[2], ("torch.nn.modules.module.Module", {}))
        own = {name: tensor for name, tensor in held.items() if name not in inner}
        act = {"act": module("torch.nn.modules.activation.GELU", {}, {}, approximate="tanh")}
        return module(kind, own, inner | (act if path.endswith("mlp") else {}), **attributes)

    return made("", tree)


def test_a_pickled_model_says_its_heads_its_epsilon_and_its_activation(tmp_path: Path) -> None:
    tensors = dict(state_dicts.read(GOLDEN / "model.safetensors"))
    norm = ("torch.nn.modules.normalization.LayerNorm", {"eps": 1e-3})
    leaves = {"attn": ("timm.Attention", {"num_heads": 4}), "norm1": norm, "norm2": norm, "norm": norm}
    whole = model(tensors, leaves)
    for value in (whole, {"model": whole, "epoch": 1}, {"ema": whole, "model": model(tensors, {})}):
        found = checkpoints.load(torch_writer.write_zip(tmp_path / "a.pth", value), config={"image_size": [24, 32]})
        assert (found.config.num_heads, found.config.epsilon, found.config.activation) == (4, 1e-3, "gelu_tanh")
        assert "epsilon" not in checkpoints.assumptions(found)
        stated = checkpoints.load(tmp_path / "a.pth", config={"image_size": [24, 32], "num_heads": 2})
        assert (stated.config.num_heads, stated.config.epsilon) == (2, 1e-3)
    leaves["norm"] = (norm[0], {"eps": 1e-5})  # they do not agree
    path = torch_writer.write_zip(tmp_path / "b.pth", model(tensors, leaves))
    assert checkpoints.load(path, config={"image_size": [24, 32]}).config.epsilon == 1e-6


@pytest.mark.peers
@pytest.mark.parametrize("name", ["plain", "clip_quickgelu", "qk_norm", "siglip"])
def test_a_pickled_model_of_timm_needs_nothing_stated(name: str, timm: Any, torch: Any, tmp_path: Path) -> None:
    made = timm_families.make(timm, name)
    torch.save(made, tmp_path / "a.pth")
    images = timm_families.drawn_images(24, 32)
    expected = timm_families.output(made, images)
    found = forward(checkpoints.load(tmp_path / "a.pth", config={"image_size": [24, 32]}), images)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
