"""Tensors as torch pickles them: a storage, a place in it, a shape and strides; and what builds them.

The rebuilding functions of torch are known by name and re-made here on plain values. A tensor that has no plain
numbers (sparse, quantized, a subclass) is kept as one that says what it is, and is refused where it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vit_deploy.checkpoints.containers.floats import FLOAT8, eighth, widened
from vit_deploy.core.config_checks import is_count
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

MAX_AXES = 64
MAX_SIDE = 1 << 62
FREE_NUMBERS = 1 << 20  # that any tensor may repeat to
GET_AGAIN = "the file is damaged: get it again"

ITEM_BYTES: Mapping[str, int] = {
    **{"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, **dict.fromkeys(FLOAT8, 1)},
    **{"int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1},
    **{"complex128": 16, "complex64": 8, "complex32": 4},
    **{"qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1, "bits8": 1},
}
"""Bytes of a number, by torch's name of its type."""

STORED: Mapping[str, str] = {
    **{"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"},
    **dict.fromkeys(FLOAT8, "u1"),
}
"""How NumPy reads the bytes of each type of float."""

STORAGES: Mapping[str, str] = {
    **{"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16"},
    **{"LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8"},
    **{"ByteStorage": "uint8", "BoolStorage": "bool"},
    **{"ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64"},
    **{"QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32"},
    **{"QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4"},
    "UntypedStorage": "uint8",  # counted in bytes; the tensors over it say what they are
}
"""The type of the numbers in each of torch's storages, by its class."""


@dataclass(frozen=True)
class Global:
    """A class or a function that a pickle names; nothing is imported for it.

    Args:
        name: with its module, `collections.OrderedDict`.
    """

    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers in a row, somewhere in the file.

    Args:
        key: by which the file has it.
        dtype: torch's name of their type; uint8 of one that is counted in bytes.
        numel: how many.
        first: of a part of the storage of that key, the number it begins with.
    """

    key: str
    dtype: str
    numel: int
    first: int = 0


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor by what is said of it; its numbers stay in the file.

    Args:
        storage: that it looks at; None where there are no numbers.
        dtype: torch's name of the type.
        offset: of its first number, in numbers.
        shape: of it.
        strides: in numbers.
        kind: what it is where it holds no plain numbers, in words; empty for a dense tensor.
        negative: whether its numbers are those of the storage with the other sign, a view that torch has not computed.
    """

    storage: Storage | None
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    kind: str = ""
    negative: bool = False

    @property
    def numel(self) -> int:
        """How many numbers it has."""
        numbers = 1
        for side in self.shape:
            numbers *= side
        return numbers

    def read(self, name: str, buffer: memoryview, start: int, size: int) -> Float32:
        """A copy of the numbers as float32.

        Args:
            name: for messages.
            buffer: the whole file.
            start: of the storage's bytes in it.
            size: how many there are.

        Raises:
            CheckpointError: no dense floats, or a shape that reaches beyond the storage or repeats it without end.
        """
        if self.kind or self.storage is None or self.dtype not in STORED:
            raise CheckpointError(
                f"{name} is {self.kind or self.dtype}; expected dense floats", fix="save it as dense floats"
            )
        item = ITEM_BYTES[self.dtype]
        at = self.storage.first * ITEM_BYTES[self.storage.dtype] + self.offset * item
        last = at + item * sum((side - 1) * stride for side, stride in zip(self.shape, self.strides, strict=True))
        if not self.numel:
            return np.zeros(self.shape, np.float32)
        if last + item > size:
            raise CheckpointError(f"{name} {self.shape} reaches beyond its {size} bytes", fix=GET_AGAIN)
        if self.numel > FREE_NUMBERS and self.numel * item > size:
            raise CheckpointError(f"{name} has the shape {self.shape} and far fewer numbers", fix=GET_AGAIN)
        strides = tuple(stride * item for stride in self.strides)
        view: NDArray[np.generic] = np.ndarray(self.shape, STORED[self.dtype], buffer, start + at, strides)
        floats = _floats(view, self.dtype)
        return np.negative(floats, out=floats) if self.negative else floats


def _floats(view: NDArray[np.generic], dtype: str) -> Float32:
    """A copy as float32, since the file that is mapped can be replaced while the weights are in use."""
    if dtype == "bfloat16":
        return widened(view.astype(np.uint16))
    if dtype in FLOAT8:
        return eighth(view.astype(np.uint8), dtype)
    with np.errstate(over="ignore"):  # becomes infinite, which the checkpoint refuses
        return view.astype(np.float32, order="C", copy=True)


def storage_of(said: object) -> Storage | Global:
    """What a pickle refers to by a persistent id; of a class with its source code, the class.

    Raises:
        CheckpointError: another kind of id than torch's, or a storage that cannot be.
    """
    if isinstance(said, tuple) and len(said) == 4 and said[0] == "module" and isinstance(said[1], Global):
        return said[1]
    if not isinstance(said, tuple) or len(said) not in (5, 6) or said[0] != "storage":
        raise _damaged("an id of no storage")
    _, kind, key, _, numel, *view = said
    module, _, name = kind.name.rpartition(".") if isinstance(kind, Global) else ("", "", "")
    if module.partition(".")[0] != "torch" or name not in STORAGES or not isinstance(key, str | int):
        raise _damaged(
            f"a storage of the unknown kind {kind.name if isinstance(kind, Global) else type(kind).__name__}"
        )
    count = _count(numel, "a storage")
    if not view or view[0] is None:
        return Storage(str(key), STORAGES[name], count)
    part = view[0]
    if not isinstance(part, tuple) or len(part) != 3:
        raise _damaged("a part of a storage that is not described")
    return Storage(str(key), STORAGES[name], _count(part[2], "a storage"), _count(part[1], "a storage"))


def _rebuilt(
    storage: object, offset: object, shape: object, strides: object, _grad: object = None, _hooks: object = None,
    metadata: object = None, *_: object,
) -> Tensor:  # fmt: skip
    if not isinstance(storage, Storage):
        raise _damaged("a tensor without a storage")
    return _tensor(storage, storage.dtype, offset, shape, strides, metadata)


def _rebuilt_typed(
    storage: object, offset: object, shape: object, strides: object, _grad: object, _hooks: object, *more: object
) -> Tensor:
    """Since torch 2: the type is said by the tensor, and its storage is counted in bytes."""
    if not isinstance(storage, Storage) or not more or (dtype := _dtype(more[0])) is None:
        raise _damaged("a tensor without a storage or a type")
    return _tensor(storage, dtype, offset, shape, strides, more[1] if len(more) > 1 else None)


def _tensor(storage: Storage, dtype: str, offset: object, shape: object, strides: object, metadata: object) -> Tensor:
    sides, steps = _counts(shape), _counts(strides)
    if len(sides) != len(steps) or len(sides) > MAX_AXES:
        raise _damaged(f"a tensor of {len(sides)} axes with {len(steps)} strides")
    negative = isinstance(metadata, dict) and metadata.get("neg") is True
    return Tensor(storage, dtype, _count(offset, "a tensor"), sides, steps, negative=negative)


def _parameter(tensor: object, *_: object) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise _damaged("a parameter without a tensor")
    return tensor


def _from_type(function: object, _type: object, args: object, *_: object) -> Tensor:
    """A tensor of a subclass: that of what it is built by, if that is known."""
    name = function.name if isinstance(function, Global) else ""
    if name not in BUILDERS or not isinstance(args, tuple):
        return _refused(f"a tensor of the unknown kind {name or type(function).__name__}")
    return BUILDERS[name](*args)


def _refused(kind: str, shape: object = (), dtype: object = None) -> Tensor:
    try:
        sides = _counts(shape)
    except CheckpointError:
        sides = ()
    return Tensor(None, _dtype(dtype) or "none", 0, sides, (0,) * len(sides), kind)


def _sparse(*args: object) -> Tensor:
    inside = next((arg for arg in args if isinstance(arg, tuple)), ())
    shape = next((item for item in inside[1:] if isinstance(item, tuple)), ())
    return _refused("a sparse tensor", shape)


def _subclass(kind: object = None, dtype: object = None, shape: object = (), *_: object) -> Tensor:
    name = kind.name if isinstance(kind, Global) else "unknown"
    return _refused(f"a tensor of the subclass {name}", shape, dtype)


def quantized_tensor(_storage: object = None, _offset: object = 0, shape: object = (), *_: object) -> Tensor:
    """A tensor of whole numbers with scales of torch's own."""
    return _refused("a quantized tensor", shape)


def _meta(dtype: object = None, shape: object = (), *_: object) -> Tensor:
    return _refused("a tensor of the device meta, which holds no numbers", shape, dtype)


def _of_another_kind(*_: object) -> Tensor:
    return _refused("a tensor of another device")


BUILDERS: Mapping[str, Callable[..., Tensor]] = {
    "torch._utils._rebuild_tensor": _rebuilt,
    "torch._utils._rebuild_tensor_v2": _rebuilt,
    "torch._utils._rebuild_tensor_v3": _rebuilt_typed,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type": _from_type,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_sparse_csr_tensor": _sparse,
    "torch._utils._rebuild_nested_tensor": _sparse,
    "torch._utils._rebuild_wrapper_subclass": _subclass,
    "torch._utils._rebuild_qtensor": quantized_tensor,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_device_tensor_from_numpy": _of_another_kind,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _of_another_kind,
    "torch._utils._rebuild_xla_tensor": _of_another_kind,
}
"""Torch's own functions that make tensors of what a pickle says, by name."""


def _dtype(said: object) -> str | None:
    name = said.name.removeprefix("torch.") if isinstance(said, Global) else ""
    return name if name in ITEM_BYTES else None


def _counts(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple | list):
        raise _damaged("a tensor without a shape")
    return tuple(_each_count(values))


def _each_count(values: tuple[object, ...] | list[object]) -> Iterator[int]:
    for value in values:
        yield _count(value, "a tensor")


def _count(value: object, of: str) -> int:
    if not is_count(value) or not 0 <= value < MAX_SIDE:
        raise _damaged(f"{of} whose size is {'no such number' if is_count(value) else f'a {type(value).__name__}'}")
    return value


def _damaged(what: str) -> CheckpointError:
    return CheckpointError(f"its pickle has {what}", fix=GET_AGAIN)
