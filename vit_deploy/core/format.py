"""The record of a format and those of its runtimes, from which everything that depends on the format follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module, metadata
from typing import Any

from vit_deploy.core.older_python import StrEnum
from vit_deploy.core.registry import Plugin
from vit_deploy.errors import ConfigError, did_you_mean

FP32 = "fp32"
GROUP = "vit_deploy.formats"
"""The group of entry points by which other distributions add formats, each as `name = module:FORMAT`."""


class Target(StrEnum):
    """What a file is made for, where a format has files for several."""

    CPU = "cpu"  # and everything else: standard operators alone
    CUDA = "cuda"  # ONNX Runtime on an NVIDIA GPU
    TENSORRT = "tensorrt"
    WEB = "web"  # WebAssembly in browsers: ONNX Runtime Web and LiteRT.js
    TRANSFORMERS_JS = "transformers.js"  # the library that runs models of the hub in browsers and Node
    QNN = "qnn"  # Qualcomm's Hexagon
    RKNN = "rknn"  # Rockchip's NPUs
    COREML = "coreml"  # Apple's Core ML, by coremltools
    TPU_MLIR = "tpu-mlir"  # Sophgo's TPUs


@dataclass(frozen=True)
class RuntimeEntry:
    """An engine that runs files of a format.

    Args:
        name: the name on the command line.
        engine: the class with `open`, see `runtimes.Runtime`.
        providers: what it can be asked to execute a file with; the path of a shared library is another matter.
        takes_libraries: whether a provider may also be the path of a shared library, as LiteRT's delegates are.
        profiler: the class with `times`, see `performance.profilers.Profiler`; None where operators are not timed.
        profiled_on: the provider whose operators the profiler times.
        not_profiled: why there is no profiler.
        keeps_threads: whether the engine takes the number of its threads once in a process.
        prefers_gpus: whether it takes a GPU where there is one and no provider is named.
        named_only: whether it runs only where it, or a provider of its own, is named, and on this machine alone.
        in_browsers: whether a browser runs it, of the user's choice.
        precisions: the only ones that it takes; empty for all.
        tapper: the class with `open` that shows what this engine itself computes on the way, made with the provider;
            None where files are looked into as the format's own tapper runs them.
    """

    name: str
    engine: Plugin
    providers: tuple[str, ...] = ("cpu",)
    takes_libraries: bool = False
    profiler: Plugin | None = None
    profiled_on: str = ""
    not_profiled: str = ""
    keeps_threads: bool = False
    prefers_gpus: bool = False
    named_only: bool = False
    in_browsers: bool = False
    precisions: tuple[str, ...] = ()
    tapper: Plugin | None = None


@dataclass(frozen=True)
class Format:
    """Everything that is particular to one format.

    Higher layers are named by plugins, "module:attribute", which are imported only when they are used.

    Args:
        name: the name on the command line and in manifests.
        title: the name in sentences.
        noun: a file of it in sentences, with its article.
        kind: what such a file is called in short.
        model_files: the names of the model files in an artifact; the first one stands for the model. Empty for files
            that are run as they are and make no artifact.
        runtimes: the engines that run it; the first one proves an export.

        suffixes: the suffixes by which its files are known.
        magic: places in a file and the bytes there by which it is known, before its suffix is looked at.
        folder_file: the file by which a model is known that is a folder.
        no_essentials: why its files do not hold their own description; empty where they do. Files without one are not
            run outside of an artifact.
        read_graph: `(path) -> formats.graph.Graph`.
        refuse: `(path) -> None`, raises on files that no engine loads though they can be read.
        refuse_bare: `(path, graph) -> None`, raises on files outside of an artifact that are not made for images alone.
        files_beside: `(path) -> (files, notes)`, the files that hold a part of it, and what is wrong with them.
        input_quantization: `(path) -> (scale, zero point) | None` of the input.
        weight_types: `(path) -> Counter` of numbers by their type; None where all files count as fp32.
        read_weights: `(path) -> {name: array}`; None where weights cannot be read.
        has_canonical_names: whether these weights have the checkpoint's names.
        operators_on_cuda: `(operators) -> list of formats.cuda_operators.OnCuda`.
        accelerators: `(path) -> {key: formats.accelerators.Verdict}`, what accelerators leave to the CPU.
        snippet: the `formats.snippet.Lines` that run it in its plain engine.
        largest_batch: `(artifact) -> int`, the most images a call that a file with an open batch was built for; None
            where any number goes.

        precisions: the precisions of its files by what they are made for.
        exporter: the class with `write`, see `exporters.Exporter`.
        compiler: the class with `write`, see `exporters.Compiler`, of a format that is compiled of another one's files.
        made_of: that other format.
        has_opset: whether `--opset` says something of it.
        has_layout: whether `--layout` says something of it.
        has_fixed_batch: whether its files are made for one number of images.
        opens_sizes: whether its files can be made for images of any height and width.
        joins_sizes: whether several sizes of images can be in one file, a signature for each.
        quantizer: the class with `write`, see `exporters.quantization.Quantizer`.
        recipes: the tables of recipes by precision, by what the files are made for.
        refuse_options: `(options) -> None`, raises on quantization options that do nothing in this format.
        quantization_options: the quantization options that only some formats have.
        triton: the `exporters.tensorrt.triton.Backend` that serves it.

        tapper: the class with `open`, see `verification.locate.Tapper`.
        folds_norms: whether scale and bias of a norm, and its mean, are part of the matmuls around it.
        rebalanced: the precisions in which factors move from norms into the weights behind them.
        saturating: the precisions whose products of 8 bits saturate on x86 processors without VNNI.
        half_sums: the precisions whose sums are kept in half on Arm processors with half arithmetic.
    """

    name: str
    title: str
    noun: str
    kind: str
    model_files: tuple[str, ...]
    runtimes: tuple[RuntimeEntry, ...]

    suffixes: tuple[str, ...] = ()
    magic: tuple[tuple[int, bytes], ...] = ()
    folder_file: str = ""
    no_essentials: str = ""
    read_graph: Plugin | None = None
    refuse: Plugin | None = None
    refuse_bare: Plugin | None = None
    files_beside: Plugin | None = None
    input_quantization: Plugin | None = None
    weight_types: Plugin | None = None
    read_weights: Plugin | None = None
    has_canonical_names: bool = True
    operators_on_cuda: Plugin | None = None
    accelerators: Plugin | None = None
    snippet: Plugin | None = None
    largest_batch: Plugin | None = None

    precisions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exporter: Plugin | None = None
    compiler: Plugin | None = None
    made_of: str = ""
    has_opset: bool = False
    has_layout: bool = False
    has_fixed_batch: bool = False
    opens_sizes: bool = False
    joins_sizes: bool = False
    quantizer: Plugin | None = None
    recipes: Mapping[str, Plugin] = field(default_factory=dict)
    refuse_options: Plugin | None = None
    quantization_options: frozenset[str] = frozenset()
    triton: Plugin | None = None

    tapper: Plugin | None = None
    folds_norms: bool = False
    rebalanced: tuple[str, ...] = ()
    saturating: tuple[str, ...] = ()
    half_sums: tuple[str, ...] = ()

    @property
    def runtime_names(self) -> tuple[str, ...]:
        """The names of the engines that run it."""
        return tuple(runtime.name for runtime in self.runtimes)

    @property
    def proving_runtime(self) -> str:
        """The name of the engine that proves an export."""
        return self.runtimes[0].name

    @property
    def is_made_for_targets(self) -> bool:
        """Whether there is a choice of what a file is made for."""
        return len(self.precisions) > 1

    def target(self, requested: Target) -> Target:
        """What a file is made for: what was requested where there is a choice."""
        return requested if requested in self.precisions else Target(next(iter(self.precisions)))

    def precisions_for(self, requested: Target) -> tuple[str, ...]:
        """The precisions of files that are made for a target."""
        return self.precisions[self.target(requested)]

    @property
    def every_precision(self) -> tuple[str, ...]:
        """The precisions of all its files, whatever they are made for."""
        return tuple(dict.fromkeys(precision for table in self.precisions.values() for precision in table))


class Formats(Mapping[str, Format]):
    """Formats by name: those of this package, and those that other installed distributions add."""

    def __init__(self, own: Iterable[Format]) -> None:
        self.own = tuple(own)

    @cached_property
    def _records(self) -> dict[str, Format]:
        records = {record.name: record for record in self.own}
        for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
            added = _loaded(entry)
            if added.name in records:
                raise ConfigError(
                    f"{_origin(entry)} adds the format {added.name!r}, which there is already",
                    fix="uninstall one of the distributions that add it, or rename its format",
                )
            records[added.name] = added
        return records

    def __getitem__(self, name: str) -> Format:
        if name not in self._records:
            raise ConfigError(f"unknown format {name!r}", fix=did_you_mean(name, self))
        return self._records[name]

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def plugins(self, of: Callable[[Format], Plugin | None]) -> dict[str, Plugin]:
        """What one field names in each format that has it."""
        return {record.name: plugin for record in self.values() if (plugin := of(record)) is not None}

    def of_artifacts(self) -> dict[str, Format]:
        """The formats that artifacts are in."""
        return {record.name: record for record in self.values() if record.model_files}

    def runtimes(self) -> dict[str, RuntimeEntry]:
        """The engines of all formats, by name."""
        return {runtime.name: runtime for record in self.values() for runtime in record.runtimes}


def _loaded(entry: metadata.EntryPoint) -> Format:
    """The record that an entry point names.

    Raises:
        ConfigError: there is none.
    """
    fix = f"install a version of {entry.dist.name if entry.dist else 'it'} that fits, or uninstall it"
    try:
        found: Any = import_module(entry.module)
        for name in filter(None, (entry.attr or "").split(".")):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{_origin(entry)} adds a format that cannot be imported: {error}", fix=fix) from error
    if not isinstance(found, Format):
        raise ConfigError(
            f"{_origin(entry)} names an object of type {type(found).__name__} as a format, expected a "
            f"{Format.__module__}.Format",
            fix=fix,
        )
    return found


def _origin(entry: metadata.EntryPoint) -> str:
    name = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a distribution"
    return f"{name} ({entry.value})"
