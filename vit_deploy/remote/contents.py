"""Modules that travel to a device: what its runner, its workers and the engines of its artifacts import."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import resolve_name
from pathlib import Path

import vit_deploy
from vit_deploy.core.format_table import FORMATS
from vit_deploy.errors import ConfigError
from vit_deploy.performance.profilers import PROFILERS
from vit_deploy.runtimes import GPU_PROVIDERS, RUNTIMES

PACKAGE = Path(vit_deploy.__file__).parent

# What is started on a device: the runner, and the processes in which it times and profiles a case.
STARTED = ("vit_deploy.remote.device", "vit_deploy.performance.worker", "vit_deploy.performance.profilers.worker")

# Modules (with all below them) that a module which travels imports inside of functions which nothing calls on a device,
# where there are artifacts and nothing else.
LEFT_AT_HOME: Mapping[str, str] = {
    "vit_deploy.checkpoints": "checkpoints are read where artifacts are made",
    "vit_deploy.core.origin": "so are their licences looked at there",
    "vit_deploy.core.reference": "so do they answer by the reference there",
    "vit_deploy.verification.recording": "and their golden data are recorded there",
    "vit_deploy.verification.targets": "model files of anybody are proven and timed where they are",
    "vit_deploy.runtimes.simulators": "no processor is simulated on another device",
    "vit_deploy.verification.arm_half": "nor is one asked what an Arm processor would give",
}

# What says how a GPU is doing; it travels only with engines that run on GPUs.
FOR_GPUS = "vit_deploy.performance.gpu_watch"


def modules_on_device(formats: Iterable[str]) -> dict[str, Path]:
    """Source files by the names of their modules, which import one another and nothing else of this package.

    Args:
        formats: of the artifacts that travel; the engines of others stay at home.
    """
    formats = tuple(formats)
    found: dict[str, Path] = {}
    left = left_at_home(formats)
    waiting = [*STARTED, *engines(formats)]
    while waiting:
        name = waiting.pop()
        if name in found or is_among(name, left):
            continue
        found[name] = source_of(name)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        waiting.extend(imported_by(name))
    return dict(sorted(found.items()))


def engines(formats: Iterable[str]) -> set[str]:
    """Modules of the runtimes that take a format, of their profilers, and of what says how many images they take.

    Raises:
        ConfigError: they are in another distribution, whose files do not travel.
    """
    formats = tuple(formats)
    runtimes = {runtime.name for format in formats for runtime in FORMATS[format].runtimes if not runtime.named_only}
    plugins = [registry[name] for registry in (RUNTIMES, PROFILERS) for name in runtimes if name in registry]
    plugins += [limit for format in formats if (limit := FORMATS[format].largest_batch) is not None]
    found = {plugin.target.partition(":")[0] for plugin in plugins}
    if others := sorted(name for name in found if name.partition(".")[0] != vit_deploy.__name__):
        raise ConfigError(
            f"what runs there is in {', '.join(others)}, of which an archive holds nothing",
            fix="install vit-deploy and the distribution that adds the format on the device, and copy the artifact",
        )
    return found


def left_at_home(formats: Iterable[str]) -> tuple[str, ...]:
    """Modules that stay where artifacts of these formats are packed, with all below them."""
    engines = [engine for format in formats for engine in FORMATS[format].runtimes]
    on_gpus = any(provider in GPU_PROVIDERS for engine in engines for provider in engine.providers)
    return (*LEFT_AT_HOME,) if on_gpus else (*LEFT_AT_HOME, FOR_GPUS)


def is_among(name: str, modules: Iterable[str]) -> bool:
    """Whether a module is one of these, or below one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def source_of(name: str) -> Path:
    """The file of a module of this package.

    Raises:
        LookupError: there is no such module.
    """
    path = PACKAGE.joinpath(*name.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    raise LookupError(f"{name} is no module of this package")


def imported_by(name: str, *, in_functions: bool = True) -> set[str]:
    """Modules of this package that a module imports, inside of its functions too; not those for type checkers.

    Args:
        name: the module.
        in_functions: whether imports count that run only when a function is called.
    """
    path = source_of(name)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in _imports(ast.parse(path.read_text(encoding="utf-8")), in_functions):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            origin = resolve_name("." * node.level + (node.module or ""), package)
            names = [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
        found.update(filter(_is_module, names))
    return found


def _imports(node: ast.AST, in_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from _imports(ast.Module(child.orelse, []), in_functions)
        elif in_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports(child, in_functions)


def _is_module(name: str) -> bool:
    if name.partition(".")[0] != vit_deploy.__name__:
        return False
    try:
        source_of(name)
    except LookupError:  # a function or a class of a module
        return False
    return True
