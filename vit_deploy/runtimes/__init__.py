"""The runtimes, and the one method through which each runs an artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format import RuntimeEntry
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.options.running import RuntimeOptions as RuntimeOptions
from vit_deploy.core.registry import Registry
from vit_deploy.errors import ConfigError, EngineError

RUNTIMES = Registry("runtime", lambda: {name: runtime.engine for name, runtime in FORMATS.runtimes().items()})
EMULATED = "-emulated"  # ends the name of what executes a graph where a processor is emulated
ON_GPUS_ALONE = "bf16"  # the precision for which processors have no kernels
GPU_PROVIDERS = ("cuda", "cuda-eager", "tensorrt", "tensorrt-rtx")


def known_providers() -> tuple[str, ...]:
    """The providers of all runtimes."""
    return tuple(dict.fromkeys(name for runtime in FORMATS.runtimes().values() for name in runtime.providers))


def is_library(provider: str) -> bool:
    """Whether a provider is the path of a shared library."""
    return "/" in provider or "\\" in provider or provider.endswith((".so", ".dll", ".dylib"))


def installed_takers(format: str, provider: str | None = None) -> tuple[str, ...]:
    """The installed runtimes that take a format and can be asked for a provider; the first of `takers_of` without any.

    Args:
        format: the format of the artifact.
        provider: None for any.
    """
    takers = takers_of(format, provider)
    return tuple(name for name in takers if not RUNTIMES[name].missing()) or takers[:1]


def takers_of(format: str, provider: str | None = None) -> tuple[str, ...]:
    """The runtimes that take a format and can be asked for a provider; the format's first if there is none.

    Args:
        format: the format of the artifact.
        provider: None for any.
    """
    takers = FORMATS[format].runtimes
    offering = (taker for taker in takers if _offers(taker, provider))
    return tuple(taker.name for taker in offering if provider or not taker.named_only) or (takers[0].name,)


def _offers(runtime: RuntimeEntry, provider: str | None) -> bool:
    if provider is not None and is_library(provider):
        return runtime.takes_libraries
    return provider is None or provider in runtime.providers


def is_asked_for_gpu(runtime: str, provider: str | None) -> bool:
    """Whether a GPU is what executes it, or nothing does.

    Args:
        runtime: that runs.
        provider: the requested one; None for its usual one.
    """
    if provider is None:
        known = FORMATS.runtimes().get(runtime)
        return known is not None and all(name in GPU_PROVIDERS for name in known.providers)
    return provider in GPU_PROVIDERS


def may_choose_gpu(runtime: str, provider: str | None) -> bool:
    """Whether it takes a GPU where there is one, though none is requested."""
    known = FORMATS.runtimes().get(runtime)
    return provider is None and known is not None and known.prefers_gpus


def is_emulated(provider: str) -> bool:
    """Whether what executed a graph is an emulated processor, whose times say nothing of a real one."""
    return provider.endswith(EMULATED)


def is_in_browsers(runtime: str) -> bool:
    """Whether a browser runs it."""
    known = FORMATS.runtimes().get(runtime)
    return known is not None and known.in_browsers


class Session(Protocol):
    """A loaded model.

    Attributes:
        provider: what really executes the graph: "cpu", "cuda", "xnnpack", …
        placement: the number of operators of each provider; empty where the engine does not tell.
        notes: what one has to know of how it runs, in words.
    """

    provider: str
    placement: Mapping[str, int]
    notes: Sequence[str]

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)` of any batch size.

        Images are normalised float32, or uint8 pixels where preprocessing is inside the model.
        """


@runtime_checkable
class NamedSession(Protocol):
    """A loaded model that tells its outputs apart."""

    def infer_outputs(self, images: NDArray[Any]) -> Mapping[str, NDArray[np.float32]]:
        """What `Session.infer` gives, of every output that is recorded, by its name."""


@runtime_checkable
class DeviceSession(Protocol):
    """A loaded model on a device with memory of its own: what `infer` does there, step by step.

    Attributes:
        trial_ns: nanoseconds of the call that opening it made to see what runs where; 0 where the engine tells
            without one. It is the first call, and no part of loading.
        build_ns: nanoseconds in which opening it built an engine for this GPU; 0 where none was built, and no part of
            loading either.
    """

    trial_ns: int
    build_ns: int

    def upload(self, images: NDArray[Any]) -> None:
        """Copy images to the device, in place of those before; returns when they are there."""

    def compute(self) -> None:
        """Run the model on what was uploaded last; returns when the device has finished."""

    def launch(self) -> None:
        """Ask the device to run the model on what was uploaded last; may return before it has."""

    def wait(self) -> None:
        """Return when the device has finished all that this session launched."""

    def download(self) -> NDArray[np.float32]:
        """Copy the outputs of the last `compute` to the host."""


@runtime_checkable
class ClockedSession(Protocol):
    """A loaded model in another program, whose calls are timed by a clock there.

    Attributes:
        load_ns: nanoseconds of loading the model by that clock, without starting the program and its engine.
        resting_mb: the memory of the program with the engine and no model, in 10^6 bytes; None where it is unknown.
        engine: what the program is, as plain JSON values.
        unfit: why its times say nothing of the machines that users have; empty if they do.
    """

    load_ns: int
    resting_mb: float | None
    engine: Mapping[str, Any]
    unfit: str

    def upload(self, images: NDArray[Any]) -> None:
        """Give the program the images of the calls to come, in place of those before."""

    def time(self, calls: int | None, seconds: float | None) -> list[int]:
        """Nanoseconds of each call on what was uploaded last.

        Args:
            calls: the number of calls; None for as many as begin within `seconds`, and at least one.
            seconds: the time for all calls together; None for no limit.
        """

    def peak_mb(self) -> float | None:
        """The most memory that the program was seen to hold, in 10^6 bytes; None where it is unknown."""

    def cpu_s(self) -> float | None:
        """Seconds of processors that the program has taken so far; None where it is unknown."""


def infer_outputs(session: Session, artifact: Artifact, images: NDArray[Any]) -> Mapping[str, NDArray[np.float32]]:
    """Every recorded output `(batch, …)` of a loaded artifact, by its name.

    Args:
        session: the loaded artifact.
        artifact: the artifact.
        images: as `Session.infer` takes them.

    Raises:
        EngineError: the engine gives one output alone, and the artifact has several.
    """
    if not artifact.outputs:
        return {artifact.output_name: session.infer(images)}
    if not isinstance(session, NamedSession):
        raise EngineError(
            f"this engine reads {artifact.output_name} alone, and {artifact.model_path} has {len(artifact.outputs)} "
            "outputs",
            fix="run it with another runtime",
        )
    return session.infer_outputs(images)


def infer_on_device(session: DeviceSession, images: NDArray[Any]) -> NDArray[np.float32]:
    """What `Session.infer` gives, by way of the device: `(batch, …)` for `(batch, height, width, channels)`."""
    session.upload(images)
    session.compute()
    return session.download()


class Runtime(Protocol):
    """An engine."""

    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> AbstractContextManager[Session]:
        """Load an artifact; the session is freed when the context ends.

        Raises:
            EngineError: the engine refuses the file or the options.
        """


@runtime_checkable
class DeviceRuntime(Protocol):
    """An engine that can open a device before it loads anything there."""

    def prepare(self, options: RuntimeOptions = RuntimeOptions()) -> None:
        """Load the libraries of the device that is requested and open it, so that neither is part of loading a model.

        Nothing is done where the options ask for no device with memory of its own.

        Raises:
            EngineError: there is no such device, or it cannot be opened.
        """


def runtime_for(artifact: Artifact, runtime: str | None, options: RuntimeOptions) -> str:
    """The name of the engine that is going to run an artifact.

    Args:
        artifact: the artifact to run.
        runtime: the requested one; None takes the first installed one that can be asked for the provider.
        options: the options, with the provider.

    Raises:
        ConfigError: the runtime is unknown or does not take the format.
        MissingEngineError: it is not installed.
    """
    takers = FORMATS[artifact.format].runtime_names
    name = runtime or installed_takers(artifact.format, options.provider)[0]
    RUNTIMES.check(name)
    if name not in takers:
        raise ConfigError(f"{name} does not run {artifact.model_path}", fix=f"take {' or '.join(takers)}")
    only = FORMATS.runtimes()[name].precisions
    if only and artifact.precision not in only:
        raise ConfigError(
            f"{name} runs {' and '.join(only)} alone, and {artifact.path} is {artifact.precision}",
            fix=f"make it with vit-deploy quantize -p {only[0]}",
        )
    return name


@contextmanager
def open_session(
    artifact: Artifact,
    runtime: str | None = None,
    options: RuntimeOptions = RuntimeOptions(),
    *,
    engine: Runtime | None = None,
) -> Iterator[Session]:
    """Load an artifact in an engine; the session is freed when the context ends.

    Args:
        artifact: the artifact to run.
        runtime: the name of the engine; None takes the first installed one that can be asked for the provider.
        options: how to run it.
        engine: takes the place of the named one, as those that simulate a processor do.

    Raises:
        ConfigError: a runtime that is unknown or does not take the format, or options of a GPU or a browser where none
            executes it.
        MissingEngineError, EngineError: the engine is not installed, or refuses the file or the options.
    """
    chosen = engine
    if chosen is None:
        name = runtime_for(artifact, runtime, options)
        refuse_idle_browser(artifact, options, name)
        chosen = RUNTIMES.load(name)()
    with chosen.open(artifact, options) as session:
        refuse_idle_options(artifact, options, session.provider)
        yield session


def refuse_idle_options(artifact: Artifact, options: RuntimeOptions, provider: str) -> None:
    """Refuse options of a GPU where none executes the graph: nobody would notice that they say nothing.

    Args:
        artifact: that is run.
        options: that it was opened with.
        provider: that executes it.

    Raises:
        ConfigError: such options.
    """
    if provider in GPU_PROVIDERS:
        return
    given = [f"--device {options.device}"] if options.device else []
    given += ["--cuda-graph"] if options.cuda_graph else []
    if given:
        is_are = "are" if len(given) > 1 else "is"
        raise ConfigError(
            f"{' and '.join(given)} {is_are} for GPUs, and {artifact.path} runs on {provider}",
            fix="add --provider cuda",
        )


def refuse_idle_browser(artifact: Artifact, options: RuntimeOptions, runtime: str) -> None:
    """Refuse a browser, or files for one, where none is opened.

    Args:
        artifact: that is to run.
        options: that it is going to be opened with.
        runtime: that runs it.

    Raises:
        ConfigError: such options.
    """
    given = [] if options.browser is None else [f"--browser {options.browser}"]
    given += [] if options.runtime_files is None else [f"--runtime-files {options.runtime_files}"]
    if given and not is_in_browsers(runtime):
        is_are = "are" if len(given) > 1 else "is"
        raise ConfigError(
            f"{' and '.join(given)} {is_are} for browsers, and {artifact.path} runs in {runtime}",
            fix="add --runtime web",
        )
