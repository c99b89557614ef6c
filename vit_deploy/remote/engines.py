"""Engines that artifacts need on another machine, which is asked for them before anything is sent there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.registry import Plugin
from vit_deploy.errors import ConfigError
from vit_deploy.runtimes import GPU_PROVIDERS, ON_GPUS_ALONE, RUNTIMES, is_asked_for_gpu, may_choose_gpu, takers_of


@dataclass(frozen=True)
class Need:
    """What an artifact needs: one of several engines.

    Args:
        engines: the alternatives, the usual one first.
    """

    engines: tuple[Plugin, ...]

    @property
    def modules(self) -> set[str]:
        """Top-level modules of all alternatives."""
        return {name for engine in self.engines for name in (*engine.needs, *engine.either)}

    def missing(self, absent: Collection[str]) -> tuple[str, ...]:
        """What the usual engine lacks; nothing where an alternative has everything.

        Args:
            absent: those of `modules` that are not installed there.
        """
        lacking = [engine.absent_modules(lambda name: name not in absent) for engine in self.engines]
        return () if () in lacking else lacking[0]


def needs(formats: Iterable[str], runtimes: Sequence[str] = (), providers: Sequence[str] = ()) -> tuple[Need, ...]:
    """What artifacts need.

    Args:
        formats: of the artifacts.
        runtimes: the requested ones, each of which is needed; none for any that takes the format.
        providers: that one of them has to offer; none for any.

    Raises:
        ConfigError: a runtime that there is not, or one of this machine alone.
    """
    offered = {name: runtime.providers for name, runtime in FORMATS.runtimes().items() if runtime.named_only}
    local = [name for name in runtimes if name in offered]
    local += [name for name in providers if any(name in own for own in offered.values())]
    if local:
        raise ConfigError(f"{', '.join(local)} runs on this machine alone", fix="leave out --on")
    if runtimes:
        return tuple(Need((RUNTIMES[name],)) for name in dict.fromkeys(runtimes))
    alternatives = {takers_of(format, provider): None for format in formats for provider in providers or (None,)}
    return tuple(Need(tuple(RUNTIMES[name] for name in names)) for names in alternatives)


def missing_there(needed: Iterable[Need], absent: Collection[str]) -> tuple[str, ...]:
    """What is lacking on another machine, each once and by name.

    Args:
        needed: from `needs`.
        absent: modules that are not installed there.
    """
    return tuple(sorted({name for need in needed for name in need.missing(absent)}))


def may_run_on_gpus(artifacts: Iterable[Artifact], runtimes: Sequence[str] = (), providers: Sequence[str] = ()) -> bool:
    """Whether a machine may be asked to run some of the artifacts on a GPU.

    Args:
        artifacts: the artifacts.
        runtimes: the requested ones; none for any that takes the format.
        providers: the requested ones; none for the usual one of each runtime.
    """
    if providers:
        return any(provider in GPU_PROVIDERS for provider in providers)
    return any(
        artifact.precision == ON_GPUS_ALONE or is_asked_for_gpu(name, None) or may_choose_gpu(name, None)
        for artifact in artifacts
        for name in runtimes or takers_of(artifact.format)
    )
