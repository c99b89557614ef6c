"""Modules that travel to a device: what its runner, its workers and the engines of its artifacts import."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import resolve_name
from pathlib import Path

import vit_deploy
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format import RuntimeEntry
from vit_deploy.core.format_table import FORMATS
from vit_deploy.errors import ConfigError
from vit_deploy.performance.profilers import PROFILERS
from vit_deploy.remote.work import COMMANDS
from vit_deploy.runtimes import GPU_PROVIDERS, RUNTIMES

PACKAGE = Path(vit_deploy.__file__).parent

# What is started on a device: the runner, and the processes in which it times and profiles a case.
STARTED = ("vit_deploy.remote.device", "vit_deploy.performance.worker", "vit_deploy.performance.profilers.worker")


@dataclass(frozen=True)
class Asked:
    """What the runner in an archive is going to be asked for: all that it can do, unless somebody knows better.

    Args:
        commands: of the runner.
        runtimes: the engines that are named; none for any that take the artifacts.
        on_gpus: whether engines may be asked to run on GPUs.
        profiles: whether operators are timed as well.
        looks_for_batch: whether the largest batch under a time is looked for.
    """

    commands: tuple[str, ...] = tuple(COMMANDS)
    runtimes: tuple[str, ...] = ()
    on_gpus: bool = True
    profiles: bool = True
    looks_for_batch: bool = True


EVERYTHING = Asked()


@dataclass(frozen=True)
class Use:
    """What an archive is for, from which it follows what is imported there.

    Args:
        formats: of the artifacts in it; the engines of others stay at home.
        asked: what its runner is going to be asked for.
        with_images: whether images travel with the artifacts, so that no data set is read there.
        has_sizes: whether an artifact is for several sizes of images.
        has_outputs: whether an artifact has outputs by name.
        has_signatures: whether an artifact has several signatures, one for each size of images.
        has_rotary: whether a model has rotary positions.
    """

    formats: tuple[str, ...]
    asked: Asked = EVERYTHING
    with_images: bool = False
    has_sizes: bool = False
    has_outputs: bool = False
    has_signatures: bool = False
    has_rotary: bool = False

    @property
    def engines(self) -> tuple[RuntimeEntry, ...]:
        """Those that may run its artifacts."""
        takers = [engine for format in self.formats for engine in FORMATS[format].runtimes if not engine.named_only]
        named = self.asked.runtimes
        return tuple(engine for engine in takers if engine.name in named or not named)

    @property
    def reaches_gpus(self) -> bool:
        """Whether one of its engines runs on GPUs alone, or may be asked to."""
        on_gpus = [[provider in GPU_PROVIDERS for provider in engine.providers] for engine in self.engines]
        return any(map(all, on_gpus)) or (self.asked.on_gpus and any(map(any, on_gpus)))


def use_of(artifacts: Sequence[Artifact], asked: Asked = EVERYTHING, *, with_images: bool = False) -> Use:
    """What an archive of these artifacts is for.

    Args:
        artifacts: the artifacts.
        asked: what its runner is going to be asked for.
        with_images: whether images travel with them.
    """
    return Use(
        tuple(dict.fromkeys(artifact.format for artifact in artifacts)),
        asked,
        with_images,
        has_sizes=any(artifact.sizes for artifact in artifacts),
        has_outputs=any(artifact.outputs for artifact in artifacts),
        has_signatures=any(size.signature for artifact in artifacts for size in artifact.sizes),
        has_rotary=any(artifact.config.rotary is not None for artifact in artifacts),
    )


@dataclass(frozen=True)
class Apart:
    """A module, with all below it, that a module which travels imports inside of functions.

    Args:
        name: its name.
        why: what an archive without it does not do.
        travels: whether these functions are called by an archive for some use.
    """

    name: str
    why: str
    travels: Callable[[Use], bool] = lambda use: False


APART = (
    Apart("vit_deploy.checkpoints", "checkpoints are read where artifacts are made"),
    Apart("vit_deploy.core.origin", "so are their licences looked at there"),
    Apart("vit_deploy.core.reference", "so do they answer by the reference there"),
    Apart("vit_deploy.verification.recording", "and their golden data are recorded there"),
    Apart("vit_deploy.verification.targets", "model files of anybody are proven and timed where they are"),
    Apart("vit_deploy.verification.activations", "nothing is looked into where files are only run"),
    Apart("vit_deploy.runtimes.simulators", "no processor is simulated on another device"),
    Apart("vit_deploy.verification.arm_half", "nor is one asked what an Arm processor would give"),
    Apart(
        "vit_deploy.performance.clocked", "programs that time calls themselves, as browsers, run on this machine alone"
    ),
    Apart("vit_deploy.verification.checks", "artifacts are proven", lambda use: "verify" in use.asked.commands),
    Apart("vit_deploy.verification.verifying", "likewise", lambda use: "verify" in use.asked.commands),
    Apart("vit_deploy.verification.records", "likewise", lambda use: "verify" in use.asked.commands),
    Apart("vit_deploy.performance", "artifacts are timed", lambda use: "bench" in use.asked.commands),
    Apart("vit_deploy.runtimes.classify", "images are classified", lambda use: "predict" in use.asked.commands),
    Apart("vit_deploy.verification.accuracy", "classes are counted", lambda use: "evaluate" in use.asked.commands),
    Apart(
        "vit_deploy.core.datasets",
        "a data set is read",
        lambda use: "evaluate" in use.asked.commands and not use.with_images,
    ),
    Apart("vit_deploy.remote.pixels", "images are read that were sent", lambda use: use.with_images),
    Apart(
        "vit_deploy.verification.golden",
        "golden images are run",
        lambda use: not {"verify", "bench"}.isdisjoint(use.asked.commands),
    ),
    Apart("vit_deploy.performance.sweep", "a batch is looked for", lambda use: use.asked.looks_for_batch),
    Apart("vit_deploy.performance.profilers", "operators are timed", lambda use: use.asked.profiles),
    Apart("vit_deploy.core.outputs", "outputs have names", lambda use: use.has_outputs),
    Apart("vit_deploy.verification.named_golden", "likewise", lambda use: use.has_outputs),
    Apart("vit_deploy.verification.named_parity", "likewise", lambda use: use.has_outputs),
    Apart("vit_deploy.core.image_sizes", "a file is for several sizes", lambda use: use.has_sizes),
    Apart("vit_deploy.core.rotary", "positions are rotary", lambda use: use.has_rotary),
    Apart("vit_deploy.formats.tflite.file", "a file has several graphs", lambda use: use.has_signatures),
    Apart("vit_deploy.core.gpu", "a GPU runs it", lambda use: use.reaches_gpus),
    Apart("vit_deploy.performance.gpu_watch", "likewise", lambda use: use.reaches_gpus),
    Apart("vit_deploy.runtimes.ort.gpus", "likewise", lambda use: use.reaches_gpus),
)


def modules_on_device(use: Use) -> dict[str, Path]:
    """Source files by the names of their modules, which import one another and nothing else of this package.

    A package travels without its `__init__.py` where nothing is imported from that, but for the outermost: a vit-deploy
    that is installed there would be taken before a folder without one.

    Args:
        use: what the archive is for.
    """
    found: dict[str, Path] = {}
    left = left_at_home(use)
    waiting = [vit_deploy.__name__, *STARTED, *engines(use)]
    while waiting:
        name = waiting.pop()
        if name in found or is_among(name, left):
            continue
        found[name] = source_of(name)
        if name != vit_deploy.__name__:  # whose names lead to all others, and are not asked for there
            waiting.extend(imported_by(name))
    return dict(sorted(found.items()))


def engines(use: Use) -> set[str]:
    """Modules of the runtimes that may run artifacts, of their profilers, and of what says how many images they take.

    Raises:
        ConfigError: they are in another distribution, whose files do not travel.
    """
    plugins = [
        registry[engine.name] for registry in (RUNTIMES, PROFILERS) for engine in use.engines if engine.name in registry
    ]
    plugins += [limit for format in use.formats if (limit := FORMATS[format].largest_batch) is not None]
    found = {plugin.target.partition(":")[0] for plugin in plugins}
    if others := sorted(name for name in found if name.partition(".")[0] != vit_deploy.__name__):
        raise ConfigError(
            f"what runs there is in {', '.join(others)}, of which an archive holds nothing",
            fix="install vit-deploy and the distribution that adds the format on the device, and copy the artifact",
        )
    return found


def left_at_home(use: Use) -> tuple[str, ...]:
    """Modules that stay where artifacts are packed for this use, with all below them."""
    return tuple(apart.name for apart in APART if not apart.travels(use))


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


@functools.cache  # archives for many machines are packed in one process
def imported_by(name: str, *, in_functions: bool = True) -> frozenset[str]:
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
            inside = [f"{origin}.{alias.name}" for alias in node.names]
            names = [*filter(_is_module, inside), *(() if all(map(_is_module, inside)) else (origin,))]
        found.update(filter(_is_module, names))
    return frozenset(found)


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
