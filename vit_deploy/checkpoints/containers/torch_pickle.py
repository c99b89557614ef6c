"""Pickle machine that builds plain containers and torch's tensors, and runs nothing.

Every class and function that a pickle names is a `Global`, and what a pickle makes of one an `Inert`, which keeps what
it was given and does nothing; only torch's tensors and the usual containers become what they stand for. The standard
library's own `Unpickler` would import first and ask later, and grows its memo to whatever a pickle says.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, cast

from vit_deploy.checkpoints.containers.torch_tensors import BUILDERS, GET_AGAIN, Global, Storage, Tensor, storage_of
from vit_deploy.errors import CheckpointError

MAX_STEPS = 20_000_000  # of one pickle: a model of a thousand tensors takes some 60,000
MAX_LINE_BYTES = 1 << 16
MAX_KEY_ITEMS = 64
MAX_COPIED = 20_000_000  # items that calls may copy in all: each can copy the same list again

Call = Callable[..., Any]


@dataclass(eq=False)
class Inert:
    """An object of a class that is not known here: what it was made of, as plain values.

    Args:
        name: of the class or the function that would have made it.
        args: that it would have been called with.
        state: that it would have been given, an instance's attributes as a rule.
        items: that would have been appended to it.
        entries: pairs that would have been set in it.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: list[tuple[Any, Any]] = field(default_factory=list)

    @property
    def attributes(self) -> Mapping[Any, Any]:
        """The state as a mapping: that of an instance, be it one with slots, or what was set in it."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        found: dict[Any, Any] = {}
        for part in parts:
            found |= part if isinstance(part, dict) else {}
        return found | {key_of(key): value for key, value in self.entries}


class Stream:
    """A part of a file as what reads pickles wants it, which never gives or takes more than there is."""

    def __init__(self, buffer: memoryview, at: int = 0) -> None:
        self._buffer = buffer
        self.at = at

    def read(self, count: int) -> bytes:
        """The next bytes, all of them.

        Raises:
            ValueError: there are fewer.
        """
        if not 0 <= count <= len(self._buffer) - self.at:
            raise ValueError(f"{count} bytes where {len(self._buffer) - self.at} are left")
        self.at += count
        return bytes(self._buffer[self.at - count : self.at])

    def readline(self) -> bytes:
        """The next line, with its end if there is one among so many bytes as a line may have."""
        room = bytes(self._buffer[self.at : self.at + MAX_LINE_BYTES])
        end = room.find(b"\n") + 1
        self.at += end or len(room)
        return room[:end] if end else room

    def tell(self) -> int:
        """Bytes before the next."""
        return self.at


def unpickled(stream: Stream, seen: dict[str, Storage] | None = None) -> Any:
    """The value of one pickle; the stream is then behind it.

    Args:
        stream: that it is read from.
        seen: takes up the storages that it refers to, by key.

    Raises:
        CheckpointError: it is damaged, or takes more steps than any checkpoint.
    """
    machine = _Machine({} if seen is None else seen)
    try:
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], stream))):
            if steps > MAX_STEPS:
                raise CheckpointError(f"its pickle has more than {MAX_STEPS} steps", fix=GET_AGAIN)
            if opcode.name == "STOP":
                break
            machine.step(opcode.name, argument)
        return machine.result()
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(f"its pickle is damaged: {_reason(error)}", fix=GET_AGAIN) from error


def key_of(value: Any) -> Any:
    """A value as a key: itself where it is cheap to hash, else something that equals nothing.

    A tuple of tuples of tuples can take for ever to hash.
    """
    if isinstance(value, str | int | float | bytes | Global | Tensor | Inert) or value is None:
        return value
    plain = isinstance(value, tuple) and len(value) <= MAX_KEY_ITEMS
    if plain and all(isinstance(item, str | int | float | bytes) for item in value):
        return value
    return Inert(f"a key that is a {type(value).__name__}")


def _reason(error: Exception) -> str:
    if isinstance(error, IndexError):
        return "it takes more than it has made"
    if isinstance(error, KeyError):
        return "it refers to what it has not made"
    return next(iter(str(error).splitlines()), type(error).__name__)


def _dictionary(pairs: Iterable[Any] = (), *_: Any) -> dict[Any, Any]:
    found = pairs.items() if isinstance(pairs, Mapping) else [tuple(pair) for pair in pairs]
    return {key_of(key): value for key, value in found}


def _size(sides: Iterable[Any] = ()) -> tuple[Any, ...]:
    return tuple(sides)


def _tagged(value: Any, *_: Any) -> Any:
    """What TorchScript marks with its type."""
    return value


def _text_bytes(text: Any, encoding: Any = "latin-1", *_: Any) -> Any:
    return text.encode("latin-1") if isinstance(text, str) and encoding in ("latin1", "latin-1") else text


CONTAINERS: Mapping[str, Call] = {
    "collections.OrderedDict": _dictionary,
    "collections.Counter": _dictionary,
    "collections.defaultdict": lambda *_: {},
    **{f"{module}.dict": _dictionary for module in ("builtins", "__builtin__")},
    **{f"{module}.list": lambda items=(): list(items) for module in ("builtins", "__builtin__")},
    **{f"{module}.tuple": _size for module in ("builtins", "__builtin__")},
    **{f"{module}.set": lambda items=(): list(items) for module in ("builtins", "__builtin__")},
    "torch.Size": _size,
    "_codecs.encode": _text_bytes,
    **{f"torch.jit._pickle.build_{kind}list": _size for kind in ("int", "double", "bool", "tensor")},
    "torch.jit._pickle.restore_type_tag": _tagged,
}
"""What is made of values alone, by name; each takes and gives plain values."""


class _Mark:
    """Where a group of values begins on the stack."""


class _Machine:
    def __init__(self, seen: dict[str, Storage]) -> None:
        self._seen = seen
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._copied = 0

    def result(self) -> Any:
        if len(self._stack) != 1:
            raise ValueError(f"it ends with {len(self._stack)} values")
        return self._stack[0]

    def step(self, name: str, argument: Any) -> None:
        if name in VALUES:
            self._stack.append(argument)
        elif name in CONSTANTS:
            self._stack.append(CONSTANTS[name]())
        elif name in TUPLES:
            self._stack.append(tuple(self._popped(TUPLES[name])))
        else:
            STEPS[name](self, argument)

    def _popped(self, count: int) -> list[Any]:
        """The last so many values."""
        if len(self._stack) < count or any(isinstance(item, _Mark) for item in self._stack[len(self._stack) - count :]):
            raise IndexError
        values = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return values

    def _since_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while not isinstance(self._stack[at], _Mark):
            at -= 1
            if at < 0:
                raise IndexError
        values = self._stack[at + 1 :]
        del self._stack[at:]
        return values

    def _target(self) -> Any:
        """The value that the next step changes."""
        if not self._stack or isinstance(self._stack[-1], _Mark):
            raise IndexError
        return self._stack[-1]

    def mark(self, _: Any) -> None:
        self._stack.append(_Mark())

    def pop(self, _: Any) -> None:
        self._stack.pop()

    def pop_mark(self, _: Any) -> None:
        self._since_mark()

    def duplicate(self, _: Any) -> None:
        self._stack.append(self._target())

    def put(self, index: Any) -> None:
        self._memo[int(index)] = self._target()

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._target()

    def get(self, index: Any) -> None:
        self._stack.append(self._memo[int(index)])

    def tuple_of(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def list_of(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def frozen(self, _: Any) -> None:
        self._stack.append(self._since_mark())  # nothing here asks what a set holds

    def dict_of(self, _: Any) -> None:
        values = self._since_mark()
        self._stack.append({})
        self._set(values)

    def append(self, _: Any) -> None:
        (value,) = self._popped(1)
        self._extend([value])

    def appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self._target()
        if isinstance(target, Inert):
            target.items += values
        elif isinstance(target, list):
            target += values
        else:
            raise TypeError(f"it appends to a {type(target).__name__}")

    def set_item(self, _: Any) -> None:
        self._set(self._popped(2))

    def set_items(self, _: Any) -> None:
        self._set(self._since_mark())

    def _set(self, values: list[Any]) -> None:
        target = self._target()
        pairs = zip(values[::2], values[1::2], strict=True)
        if isinstance(target, Inert):
            target.entries += pairs
        elif isinstance(target, dict):
            target.update((key_of(key), value) for key, value in pairs)
        else:
            raise TypeError(f"it sets entries of a {type(target).__name__}")

    def named(self, argument: Any) -> None:
        module, _, name = str(argument).partition(" ")
        self._stack.append(Global(f"{module}.{name}"))

    def named_on_stack(self, _: Any) -> None:
        module, name = self._popped(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("it names a class by something else than texts")
        self._stack.append(Global(f"{module}.{name}"))

    def extension(self, argument: Any) -> None:
        self._stack.append(Global(f"copyreg.extension_{argument}"))

    def call(self, _: Any) -> None:
        function, args = self._popped(2)
        self._stack.append(self._called(function, args))

    def call_with_names(self, _: Any) -> None:
        function, args, _ = self._popped(3)
        self._stack.append(self._called(function, args))

    def instance(self, argument: Any) -> None:
        args = tuple(self._since_mark())
        module, _, name = str(argument).partition(" ")
        self._stack.append(self._called(Global(f"{module}.{name}"), args))

    def object_of(self, _: Any) -> None:
        function, *args = self._since_mark()
        self._stack.append(self._called(function, tuple(args)))

    def _called(self, function: Any, args: Any) -> Any:
        """What a call gives: of what is known its value, else an object that only keeps what it was given."""
        if not isinstance(args, tuple):
            raise TypeError(f"it calls something with a {type(args).__name__}")
        if not isinstance(function, Global):
            return Inert(function.name if isinstance(function, Inert) else type(function).__name__, args)
        if function.name in BUILDERS:
            return BUILDERS[function.name](*args)
        if function.name in CONTAINERS:
            self._copied += sum(len(arg) for arg in args if isinstance(arg, list | tuple | dict | str | bytes))
            if self._copied > MAX_COPIED:
                raise ValueError(f"it copies more than {MAX_COPIED} items")
            return CONTAINERS[function.name](*args)
        if function.name in ("copyreg._reconstructor", "copy_reg._reconstructor") and args:
            return Inert(args[0].name if isinstance(args[0], Global) else function.name)
        return Inert(function.name, args)

    def build(self, _: Any) -> None:
        (state,) = self._popped(1)
        target = self._target()
        if isinstance(target, Inert):
            target.state = state  # of a container or a tensor it is what no weight depends on

    def persistent_line(self, argument: Any) -> None:
        self._refer(argument)

    def persistent(self, _: Any) -> None:
        self._refer(*self._popped(1))

    def _refer(self, said: Any) -> None:
        found = storage_of(said)
        if isinstance(found, Storage):
            self._seen.setdefault(found.key, found)
        self._stack.append(found)

    def nothing(self, _: Any) -> None:
        pass

    def out_of_band(self, _: Any) -> None:
        raise ValueError("it refers to buffers that are kept elsewhere")


VALUES = frozenset(
    (
        *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_DICT": dict,
}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    **{"MARK": _Machine.mark, "POP": _Machine.pop, "POP_MARK": _Machine.pop_mark, "DUP": _Machine.duplicate},
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    **{"MEMOIZE": _Machine.memoize, "TUPLE": _Machine.tuple_of, "LIST": _Machine.list_of, "DICT": _Machine.dict_of},
    **{"FROZENSET": _Machine.frozen, "APPEND": _Machine.append, "APPENDS": _Machine.appends},
    **{"ADDITEMS": _Machine.appends, "SETITEM": _Machine.set_item, "SETITEMS": _Machine.set_items},
    **{"GLOBAL": _Machine.named, "STACK_GLOBAL": _Machine.named_on_stack, "INST": _Machine.instance},
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Machine.extension),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.call),
    **{"NEWOBJ_EX": _Machine.call_with_names, "OBJ": _Machine.object_of, "BUILD": _Machine.build},
    **{"PERSID": _Machine.persistent_line, "BINPERSID": _Machine.persistent},
    **dict.fromkeys(("PROTO", "FRAME"), _Machine.nothing),
    **dict.fromkeys(("NEXT_BUFFER", "READONLY_BUFFER"), _Machine.out_of_band),
}
