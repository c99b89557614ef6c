"""Tensors read from `.pth` and `.bin` files without running anything in their pickles.

By torch's weights-only loader alone, which knows tensors and plain containers and refuses every other object.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vit_deploy.checkpoints.assumed import WEIGHTS
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

# Where training programs keep the weights; averaged ones first, as timm takes them.
NESTED = (
    *("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model", "teacher", "encoder"),
    *("target_encoder", "student", "module", "net"),
)
AVERAGED = NESTED[:3]
WRAPPERS = ("module.", "_orig_mod.")  # put before all names by DataParallel and by torch.compile
MAX_DEPTH = 4
GET_AGAIN = "the file is damaged: get it again"
FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


@contextmanager
def open_torch(path: Path) -> Iterator[TorchTensors]:
    """The tensors of a file that `torch.save` wrote, in its zip format or in the one before it.

    Raises:
        CheckpointError: damaged, or a pickle of more than tensors, of which nothing is run.
    """
    tensors, chosen = _state_dict(_loaded(path))
    yield TorchTensors(path, tensors, {WEIGHTS: chosen} if chosen else {})


class TorchTensors:
    """A `TensorFile` over a state dict; the bytes of a zip are mapped, and read when they are asked for."""

    container = "torch"

    def __init__(self, path: Path, tensors: Mapping[str, torch.Tensor], documents: Mapping[str, Any]) -> None:
        self.path = path
        self.documents = documents
        self._tensors = tensors

    def names(self) -> Iterable[str]:
        """Names of all tensors."""
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> str:
        """Torch's name of the stored type, such as float32."""
        return str(self._tensors[name].dtype).removeprefix("torch.")

    def read(self, name: str) -> Float32:
        """One tensor as float32."""
        tensor = self._tensors[name]
        if tensor.dtype not in FLOATS or tensor.layout is not torch.strided or tensor.device.type != "cpu":
            raise CheckpointError(f"{name} is {self.dtype(name)}; expected dense floats", fix="save it as floats")
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            # A view can repeat one number without end.
            raise CheckpointError(f"{name} has the shape {self.shape(name)} and far fewer numbers", fix=GET_AGAIN)
        # A copy, since the file that is mapped can be replaced while the weights are in use.
        values: Float32 = tensor.detach().to(torch.float32, copy=True).numpy()
        return values.astype(np.float32, copy=False)


def _loaded(path: Path) -> object:
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _check_zip(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip or None)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"it holds other things than tensors, and nothing of it was run: {_first_line(error)}",
            fix="where you trust the file, save its tensors alone: torch.save(model.state_dict(), …)",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(f"torch cannot read it: {_first_line(error)}", fix=GET_AGAIN) from error
    except (AssertionError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"torch cannot read it: {type(error).__name__}", fix=GET_AGAIN) from error


def _check_zip(path: Path) -> None:
    # Torch stores its members as they are; one that is packed could become any size.
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise CheckpointError(f"its zip is damaged: {error}", fix=GET_AGAIN) from error
    if packed:
        raise CheckpointError(f"{packed[0]} in it is compressed, which torch never does", fix=GET_AGAIN)


def _first_line(error: BaseException) -> str:
    reasons = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (reasons or lines or [type(error).__name__])[0]


def _state_dict(value: object) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors by name, from wherever the usual training programs put them, and what was chosen if there were more.

    What was chosen is the `key`, whether it holds `averaged` weights, and the `others` that were passed over.
    """
    chosen: dict[str, Any] = {}
    for _ in range(MAX_DEPTH):
        if not isinstance(value, Mapping):
            break
        tensors = {str(name): each for name, each in value.items() if isinstance(each, torch.Tensor)}
        if tensors:
            return _unwrapped(tensors), chosen
        keys = [key for key in NESTED if isinstance(value.get(key), Mapping) and value[key]]
        if keys and not chosen and (len(keys) > 1 or keys[0] in AVERAGED):
            chosen = {"key": keys[0], "averaged": keys[0] in AVERAGED, "others": keys[1:]}
        value = value[keys[0]] if keys else value
    kind = f"the keys {', '.join(map(str, list(value)[:8]))}" if isinstance(value, Mapping) else type(value).__name__
    raise CheckpointError(
        f"it holds no tensors by name but {kind}",
        fix=f"save model.state_dict() itself, or under one of {', '.join(NESTED)}",
    )


def _unwrapped(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for wrapper in WRAPPERS:
        while all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): each for name, each in tensors.items()}
    return tensors
