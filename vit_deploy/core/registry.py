"""Registries: engines by name, and what has to be installed for each."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.errors import ConfigError, EngineError, MissingEngineError, did_you_mean

CRASHES_AFTER = {"tensorflow": "onnxruntime_qnn", "keras": "onnxruntime_qnn"}
"""Modules that end the process where another one was imported first: both bring the same C++ library."""


@dataclass(frozen=True)
class Plugin:
    """One entry of a registry.

    Args:
        target: "module:attribute", imported only when it is asked for.
        extra: the pip extra that installs what the module needs; empty if it needs nothing.
        needs: the top-level modules the leaf imports, checked before the import.
        either: modules of which one is enough, checked likewise.
        found: "module:function" that names what else is not there, as programs; empty for modules alone. Options may
            say where it is, so that whoever is loaded checks that for itself.
    """

    target: str
    extra: str = ""
    needs: tuple[str, ...] = ()
    either: tuple[str, ...] = ()
    found: str = ""

    def load(self) -> Any:
        """The class, function or value that it names."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def missing(self) -> tuple[str, ...]:
        """What this Python lacks: of `absent_modules`, and what `found` names."""
        return (*self.absent_modules(), *self._not_found())

    def _not_found(self) -> tuple[str, ...]:
        if not self.found:
            return ()
        module, _, name = self.found.partition(":")
        try:
            look: Callable[[], tuple[str, ...]] = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError:  # another machine, to which it does not travel
            return (module,)
        return look()

    def absent_modules(self, is_installed: Callable[[str], bool] | None = None) -> tuple[str, ...]:
        """The modules in `needs` that are not installed; and, if none is, those in `either` in one text.

        Args:
            is_installed: tells it of a module on another machine; None asks this Python.
        """
        there = is_installed or (lambda name: importlib.util.find_spec(name) is not None)
        absent = tuple(name for name in self.needs if not there(name))
        if not self.either or any(there(name) for name in self.either):
            return absent
        return (*absent, " or ".join(self.either))


class Registry(Mapping[str, Plugin]):
    """A table from names to engines; a look-up imports nothing, `load` imports one leaf.

    Args:
        kind: what the names are names of, for messages.
        plugins: the table, or a function that gives it, which is called when it is first used.
    """

    def __init__(self, kind: str, plugins: Mapping[str, Plugin] | Callable[[], Mapping[str, Plugin]]) -> None:
        self.kind = kind
        self._given = plugins

    @cached_property
    def _plugins(self) -> dict[str, Plugin]:
        return dict(self._given() if callable(self._given) else self._given)

    def __getitem__(self, name: str) -> Plugin:
        if name not in self._plugins:
            raise ConfigError(f"unknown {self.kind} {name!r}", fix=did_you_mean(name, self._plugins))
        return self._plugins[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plugins)

    def __len__(self) -> int:
        return len(self._plugins)

    def __contains__(self, name: object) -> bool:
        return name in self._plugins

    @contextlib.contextmanager
    def with_entry(self, name: str, plugin: Plugin) -> Iterator[None]:
        """A block in which the table has one more entry, or another one of this name."""
        before = dict(self._plugins)
        self._plugins[name] = plugin
        try:
            yield
        finally:
            self._plugins.clear()
            self._plugins.update(before)

    def check(self, name: str) -> None:
        """Raise `MissingEngineError`, naming the extra, unless everything `name` needs is installed."""
        plugin = self[name]
        if missing := plugin.absent_modules():
            raise MissingEngineError(
                f"the {self.kind} {name!r} needs {', '.join(missing)}, which is not installed",
                fix=f'pip install "vit-deploy[{fitting_extra(plugin.extra)}]"',
            )

    def load(self, name: str) -> Any:
        """The class or function behind `name`; the only place where an engine is imported."""
        self.check(name)
        refuse_crash(self[name])
        with quiet_stderr():  # TensorFlow logs at import
            return self[name].load()


def refuse_crash(plugin: Plugin) -> None:
    """Raise `EngineError` where an engine would crash this process, for another one was loaded before it."""
    for module, before in CRASHES_AFTER.items():
        if module in plugin.needs and module not in sys.modules and before in sys.modules:
            raise EngineError(
                f"{module} crashes in a process that has loaded {before} before it",
                fix=f"do what needs {module} first, or in a process of its own",
            )


def no_engine(python: str, missing: Sequence[str]) -> MissingEngineError:
    """The error of a Python that lacks engines.

    Args:
        python: path of the Python.
        missing: the modules, as `Plugin.missing` names them.
    """
    packages = " ".join(name.split(" or ")[-1].replace("_", "-") for name in missing)  # of several any will do
    return MissingEngineError(f"{python} has no {', '.join(missing)}", fix=f"{python} -m pip install {packages}")


def fitting_extra(extra: str) -> str:
    """The extra that brings the same beside what is installed: onnxruntime would write over onnxruntime-gpu's files."""
    if extra != "cpu":
        return extra
    try:
        metadata.distribution("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        return extra
    return "export"
