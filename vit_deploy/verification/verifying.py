"""Runs of artifacts on golden images, held to the recorded outputs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.errors import ConfigError
from vit_deploy.runtimes import (
    GPU_PROVIDERS,
    ClockedSession,
    Runtime,
    RuntimeOptions,
    Session,
    infer_outputs,
    open_session,
    runtime_for,
)
from vit_deploy.verification.golden import Golden, Sized, read_golden
from vit_deploy.verification.parity import Parity, form_of, judge
from vit_deploy.verification.tolerances import NO_LIMITS, Limits, Tolerance, looser, tolerance_for

if TYPE_CHECKING:  # no device simulates another, and many artifacts are for one size
    from vit_deploy.core.image_sizes import ImageSize
    from vit_deploy.verification.narrow_reference import NarrowReference

GROUP = 8  # images a call
BF16_PROVIDERS = ("cpu-bf16",)
SIMULATED = "simulated"  # in the place of a runtime's name


@dataclass(frozen=True)
class Check:
    """The answer to one further question to an artifact; `words` say what is wrong, or what was left out and why."""

    name: str
    ok: bool
    words: str = ""


@dataclass(frozen=True)
class SizeParity:
    """The parity of an artifact at one more size of images.

    Args:
        size: the size, with the signature that ran it where there is one for each.
        parity: with the reference resized to it.
        outputs: the parity of each output of an artifact that was made for outputs by name, of which `parity` is the
            worst one's.
    """

    size: ImageSize
    parity: Parity
    outputs: Mapping[str, Parity] = field(default_factory=dict)


@dataclass(frozen=True)
class Verification:
    """One artifact, proven or not, in one runtime.

    Args:
        artifact: the artifact.
        runtime: that ran it.
        provider: that executed the graph.
        parity: the parity with the reference on the golden images.
        checks: what else it was asked.
        seconds: that it took, loading included.
        on: address of the machine that ran it; None for this one.
        engine: the program that ran it where that is none of Python's: a browser, with the packages in it.
        sizes: the parity at each further size that was recorded.
        outputs: the parity of each output of an artifact that was made for outputs by name, of which `parity` is the
            worst one's.
    """

    artifact: Artifact
    runtime: str
    provider: str
    parity: Parity
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    on: str | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    sizes: tuple[SizeParity, ...] = ()
    outputs: Mapping[str, Parity] = field(default_factory=dict)

    @property
    def failures(self) -> tuple[str, ...]:
        """All that is wrong, in words."""
        of_sizes = (f"at {one.size}: {failure}" for one in self.sizes for failure in one.parity.failures)
        of_checks = (f"{check.name}: {check.words}" for check in self.checks if not check.ok)
        return (*self.parity.failures, *of_sizes, *of_checks)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def verdict(self) -> str:
        """The verdict in one word: same, inconclusive or different."""
        if not self.parity.ok or self.ok:
            return self.parity.verdict
        wrong = [one.parity for one in self.sizes if not one.parity.ok]
        unclear = all(check.ok for check in self.checks) and all(parity.inconclusive for parity in wrong)
        return "inconclusive" if unclear else "different"


@dataclass(frozen=True)
class CheckContext:
    """A loaded artifact and its outputs so far, for the checks.

    Args:
        artifact: the artifact.
        runtime: name of the engine, and
        options: that it was opened with.
        session: the loaded model.
        golden: images and the reference's answers.
        outputs: the artifact's own answers to the golden images, in groups of `GROUP`.
        tolerance: that they are held to.
    """

    artifact: Artifact
    runtime: str
    options: RuntimeOptions
    session: Session
    golden: Golden
    outputs: NDArray[np.float32]
    tolerance: Tolerance


CheckFunction = Callable[[CheckContext], Sequence[Check]]


def verify(
    artifact: Artifact,
    *,
    runtime: str | None = None,
    provider: str | None = None,
    golden: Golden | None = None,
    limits: Limits = NO_LIMITS,
    precision: str | None = None,
    checks: Sequence[CheckFunction] = (),
    device: int = 0,
    cuda_graph: bool = False,
    runtime_files: str | None = None,
    browser: str | None = None,
    simulate: str | None = None,
    narrow: NarrowReference | None = None,
) -> Verification:
    """Run an artifact on its golden images and compare with the recorded outputs.

    Args:
        artifact: the artifact; its precision says what it is held to.
        runtime: one of the runtimes that take its format; None takes the first that is installed.
        provider: what executes the graph; None takes the engine's usual one.
        golden: instead of the artifact's own.
        limits: those that are held instead of the precision's own.
        precision: the precision to hold it to instead of its own.
        checks: to run once its outputs have the right form; see `checks`.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.
        simulate: a processor that is not here, in the place of a runtime; see `simulators`.
        narrow: the reference in 16 bits, likewise.

    Raises:
        ArtifactError: the golden data are missing or damaged.
        ConfigError: the runtime is unknown or does not take the format, the limits are no limits, options of a GPU
            where none executes the graph, or a processor that is unknown or changes nothing for the artifact.
        MissingEngineError, EngineError: the runtime is not installed or refuses the file.
    """
    options = RuntimeOptions(
        provider=provider,
        allow_tf32=limits.allow_tf32,
        device=device,
        cuda_graph=cuda_graph,
        largest_batch=GROUP,
        runtime_files=runtime_files,
        browser=browser,
    )
    golden = golden or read_golden(artifact)
    sizes: list[SizeParity] = []
    start = time.perf_counter()
    simulator: Runtime | None = None if simulate is None else _simulator(artifact, simulate)
    simulator = narrow or simulator
    name = SIMULATED if simulator else runtime_for(artifact, runtime, options)
    with open_session(artifact, name, options, engine=simulator) as session:
        held = precision or artifact.precision
        if held == "fp32" and limits.allow_tf32 and session.provider in GPU_PROVIDERS:
            held = "tf32"
        if session.provider in BF16_PROVIDERS:
            held = looser(held, "bf16")
        if narrow is not None:
            held = looser(held, session.provider)
        form = form_of(artifact)
        usual = tolerance_for(held, golden.noise_floor, shares=form.shares is not None)
        tolerance = limits.apply(usual, held)
        if not set(tolerance.held()) - set(form.foreign):
            raise ConfigError(
                f"{', '.join(tolerance.held())} cannot be taken of the {artifact.output_name} of "
                f"{artifact.model_path}, so that everything finite would pass",
                fix="hold another metric as well, such as snr_db",
            )
        every = named_outputs_of(session, artifact, golden.images)
        outputs = every[artifact.output_name]
        judged = _judged(every, golden, artifact, tolerance, limits, held)
        parity = judged[artifact.output_name]
        if artifact.is_for_any_size:
            sizes = [_at_size(session, artifact, sized, held, limits) for sized in golden.sizes]
        context = CheckContext(artifact, name, options, session, golden, outputs, tolerance)
        results = [result for check in checks for result in check(context)] if parity.max_abs is not None else []
        provider = session.provider
        engine = dict(session.engine) if isinstance(session, ClockedSession) else {}
    if not artifact.is_for_any_size:
        for sized in golden.sizes:
            with open_session(artifact.at(sized.pixels), name, options, engine=simulator) as session:
                sizes.append(_at_size(session, artifact, sized, held, limits))
    if narrow is not None:
        results = [Check(f"range of {narrow.kind}", narrow.overflow is None, narrow.words)]
    parity = _worst_of(judged) if artifact.outputs else parity
    return Verification(
        artifact,
        name,
        provider,
        parity,
        tuple(results),
        time.perf_counter() - start,
        engine=engine,
        sizes=tuple(sizes),
        outputs={output: judged[output] for output in artifact.outputs if output in judged},
    )


def _at_size(session: Session, artifact: Artifact, sized: Sized, precision: str, limits: Limits) -> SizeParity:
    """The parity at one more size, held to what this precision allows there."""
    from vit_deploy.core.image_sizes import ImageSize

    there = artifact.at(sized.pixels)
    usual = tolerance_for(precision, sized.noise_floor, shares=form_of(there).shares is not None)
    every = named_outputs_of(session, there, sized.images)
    judged = _judged(every, sized.golden, there, limits.apply(usual, precision), limits, precision)
    size = ImageSize(sized.pixels, there.signature)
    if not artifact.outputs:
        return SizeParity(size, judged[there.output_name])
    return SizeParity(size, _worst_of(judged), {name: judged[name] for name in artifact.outputs if name in judged})


def _judged(
    every: Mapping[str, NDArray[np.float32]],
    golden: Golden,
    artifact: Artifact,
    tolerance: Tolerance,
    limits: Limits,
    precision: str,
) -> dict[str, Parity]:
    """The parity of each output by its name, that which is read first in front; see `judge_named`.

    Args:
        every: what an engine answered to the golden images, by name.
        golden: golden data of them.
        artifact: taken for their size.
        tolerance: that the output which is read first is held to.
        limits: that the others are held to where they fit, of the usual
        precision.
    """
    form, first = form_of(artifact), artifact.output_name
    compared = golden.part_of(every[first])
    parity = judge(compared, golden, classes=form.classes, tolerance=tolerance, shares=form.shares)
    judged = {first: parity if golden.kept is None else dataclasses.replace(parity, compared=golden.kept.to_dict())}
    if not golden.named:
        return judged
    from vit_deploy.verification.named_parity import judge_named  # an artifact that has one output goes without

    others = [output for output in artifact.named_outputs if output.name in golden.named]
    return judged | {
        output.name: judge_named(every[output.name], output, golden, artifact, limits, precision) for output in others
    }


def _worst_of(judged: Mapping[str, Parity]) -> Parity:
    from vit_deploy.verification.named_parity import worst_of  # likewise

    return worst_of(judged)


def _simulator(artifact: Artifact, processor: str) -> Runtime:
    from vit_deploy.runtimes.simulators import SIMULATORS, refuse_unchanged  # no device simulates another

    SIMULATORS.check(processor)
    refuse_unchanged(artifact, processor)
    simulator: Runtime = SIMULATORS.load(processor)()
    return simulator


def outputs_of(session: Session, images: NDArray[Any]) -> NDArray[np.float32]:
    """Outputs for any number of images, a group after the other, so that memory is bounded."""
    groups = [session.infer(images[start : start + GROUP]) for start in range(0, len(images), GROUP)]
    return groups[0] if len(groups) == 1 else np.concatenate(groups)


def named_outputs_of(session: Session, artifact: Artifact, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """As `outputs_of`, every recorded output by its name."""
    groups = [infer_outputs(session, artifact, images[start : start + GROUP]) for start in range(0, len(images), GROUP)]
    if len(groups) == 1:
        return dict(groups[0])
    return {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
