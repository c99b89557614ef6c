"""Parity check of an artifact against reference outputs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.config import Probabilities
from vit_deploy.core.image_sizes import ImageSize
from vit_deploy.core.outputs import Kind, Output
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
from vit_deploy.verification.metrics import Metrics, measure
from vit_deploy.verification.tolerances import (
    LIMITS,
    NOISE_FACTOR,
    Tolerance,
    looser,
    margin_noise,
    tolerance_for,
    tolerated_rms,
)
from vit_deploy.verification.user_limits import Limits

NO_LIMITS = Limits()
GROUP = 8  # images a call
BF16_PROVIDERS = ("cpu-bf16",)
SIMULATED = "simulated"  # in the place of a runtime's name
CENTRED = ("centred_cosine", "centred_snr_db")


@dataclass(frozen=True)
class Parity(Metrics):
    """How far an output is from the reference's, and whether that is near enough.

    Args:
        tolerance: that the metrics were held to.
        failures: failures in words; those in `notes` are no failures.
        inconclusive: whether it failed only because these inputs cannot tell a right answer from a constant one.
        unproven: whether nothing was compared, because there was nothing here to run it on.
        compared: what of an output was compared, where it was not all; see `named_golden.Kept`.
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
    failures: tuple[str, ...] = ()
    inconclusive: bool = False
    unproven: bool = False
    compared: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def verdict(self) -> str:
        """The verdict in one word: same, inconclusive, unproven or different."""
        if self.ok:
            return "same"
        if self.unproven:
            return "unproven"
        return "inconclusive" if self.inconclusive else "different"

    def failed(self, reason: str) -> Parity:
        """A copy with one failure more."""
        return dataclasses.replace(self, failures=(*self.failures, reason), inconclusive=False)


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
    """

    size: ImageSize
    parity: Parity


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
class Asked:
    """A loaded artifact and what it has answered so far, for further questions.

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


Question = Callable[[Asked], Sequence[Check]]


def verify(
    artifact: Artifact,
    *,
    runtime: str | None = None,
    provider: str | None = None,
    golden: Golden | None = None,
    limits: Limits = NO_LIMITS,
    precision: str | None = None,
    questions: Sequence[Question] = (),
    device: int = 0,
    cuda_graph: bool = False,
    runtime_files: str | None = None,
    browser: str | None = None,
    simulate: str | None = None,
) -> Verification:
    """Run an artifact on its golden images and compare with the recorded outputs.

    Args:
        artifact: the artifact; its precision says what it is held to.
        runtime: one of the runtimes that take its format; None takes the first that is installed.
        provider: what executes the graph; None takes the engine's usual one.
        golden: instead of the artifact's own.
        limits: those that are held instead of the precision's own.
        precision: the precision to hold it to instead of its own.
        questions: checks to run once its outputs have the right form; see `checks`.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.
        simulate: a processor that is not here, in the place of a runtime; see `simulators`.

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
    simulator = None if simulate is None else _simulator(artifact, simulate)
    name = SIMULATED if simulator else runtime_for(artifact, runtime, options)
    with open_session(artifact, name, options, engine=simulator) as session:
        held = precision or artifact.precision
        if held == "fp32" and limits.allow_tf32 and session.provider in GPU_PROVIDERS:
            held = "tf32"
        if session.provider in BF16_PROVIDERS:
            held = looser(held, "bf16")
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
        parity = judge(outputs, golden, classes=form.classes, tolerance=tolerance, shares=form.shares)
        judged = {artifact.output_name: parity} if artifact.outputs else {}
        for output in artifact.named_outputs:
            if output.name in golden.named:
                judged[output.name] = judge_named(every[output.name], output, golden, artifact, limits, held)
        if artifact.is_for_any_size:
            sizes = [_at_size(session, artifact, sized, held, limits) for sized in golden.sizes]
        asked = Asked(artifact, name, options, session, golden, outputs, tolerance)
        checks = [check for ask in questions for check in ask(asked)] if parity.max_abs is not None else []
        provider = session.provider
        engine = dict(session.engine) if isinstance(session, ClockedSession) else {}
    if not artifact.is_for_any_size:
        for sized in golden.sizes:
            with open_session(artifact.at(sized.pixels), name, options, engine=simulator) as session:
                sizes.append(_at_size(session, artifact, sized, held, limits))
    parity = worst_of(judged) if judged else parity
    return Verification(
        artifact,
        name,
        provider,
        parity,
        tuple(checks),
        time.perf_counter() - start,
        engine=engine,
        sizes=tuple(sizes),
        outputs={output: judged[output] for output in artifact.outputs if output in judged},
    )


def _at_size(session: Session, artifact: Artifact, sized: Sized, precision: str, limits: Limits) -> SizeParity:
    """The parity at one more size, held to what this precision allows there."""
    there = artifact.at(sized.pixels)
    tolerance = limits.apply(tolerance_for(precision, sized.noise_floor), precision)
    outputs = outputs_of(session, sized.images)
    golden = Golden(sized.images, sized.outputs, sized.noise_floor)
    parity = judge(outputs, golden, classes=artifact.config.include_top, tolerance=tolerance)
    return SizeParity(ImageSize(sized.pixels, there.signature), parity)


@dataclass(frozen=True)
class Form:
    """What the numbers of an output are.

    Args:
        classes: whether the last axis is of classes.
        shares: what made probabilities of the last axis; None where it is none.
    """

    classes: bool
    shares: Probabilities | None = None

    @property
    def foreign(self) -> tuple[str, ...]:
        """Metrics that do not apply to it."""
        return foreign(self.classes, self.shares)


def form_of(artifact: Artifact, output: Output | None = None) -> Form:
    """The form of an output.

    Args:
        artifact: that gives it.
        output: which one; None for the one that is read first.
    """
    if output is None:
        own = [one for one in artifact.named_outputs if one.name == artifact.output_name]
        if not own:
            return Form(artifact.config.include_top)
        output = own[0]
    if output.kind is Kind.PROBABILITIES:
        return Form(True, artifact.config.probabilities)
    return Form(output.kind is Kind.LOGITS, Probabilities.SOFTMAX if output.kind is Kind.ATTENTION else None)


def judge_named(
    values: NDArray[Any], output: Output, golden: Golden, artifact: Artifact, limits: Limits, precision: str
) -> Parity:
    """Compare one of several outputs with what is recorded of it.

    Args:
        values: what an engine answered to the golden images, `(images, …)`.
        output: which output.
        golden: golden data that have this output.
        artifact: the artifact.
        limits: those that are held instead of the precision's own.
        precision: that it is held to.

    Raises:
        ConfigError: the limits leave nothing to hold.
    """
    recorded, form = golden.named[output.name], form_of(artifact, output)
    usual = tolerance_for(precision, recorded.noise_floor, shares=form.shares is not None)
    held = limits.apply(usual, precision)
    if not set(held.held()) - set(form.foreign):  # what was asked for does not fit this output
        held = usual
    expected = (len(golden.images), *output.shape(artifact.config))
    nothing = Parity(tolerance=held)
    if values.shape != expected:
        return nothing.failed(f"the output has shape {values.shape}, expected {expected}")
    if not np.isfinite(values).all():
        return nothing.failed(f"{int((~np.isfinite(values)).sum())} of {values.size} outputs are NaN or infinite")
    part = dataclasses.replace(golden, outputs=recorded.values, noise_floor=recorded.noise_floor)
    found = judge(recorded.kept.of(values, output.name), part, classes=form.classes, tolerance=held, shares=form.shares)
    return dataclasses.replace(found, compared=recorded.kept.to_dict())


def worst_of(judged: Mapping[str, Parity]) -> Parity:
    """The parity of the worst output, with the failures of all, each after the name of its output."""
    failures = tuple(f"{name}: {failure}" for name, parity in judged.items() for failure in parity.failures)
    worst = min(judged.values(), key=_standing)
    if not failures:
        return worst
    return dataclasses.replace(
        worst, failures=failures, inconclusive=all(one.ok or one.inconclusive for one in judged.values())
    )


def _standing(parity: Parity) -> tuple[int, float]:
    """The worse, the less: failures first, then by how much of what it is allowed an output uses."""
    rank = 2 if parity.ok else 1 if parity.inconclusive else 0
    largest = parity.tolerance.max_abs
    if largest is not None and parity.max_abs is not None:
        return rank, -parity.max_abs / largest
    if parity.total_variation is not None and parity.tolerance.total_variation:
        return rank, -parity.total_variation / parity.tolerance.total_variation
    return rank, -1.0 if parity.snr_db is None else -(10 ** (((parity.tolerance.snr_db or 0.0) - parity.snr_db) / 20))


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


def judge(
    outputs: NDArray[Any],
    golden: Golden,
    *,
    classes: bool,
    precision: str = "fp32",
    tolerance: Tolerance | None = None,
    shares: Probabilities | None = None,
) -> Parity:
    """Compare outputs with golden ones, held to what their precision allows; see `tolerances`.

    Golden outputs that cannot tell a right answer from a constant one prove nothing, so they never pass: either they
    are all alike, or they differ by less than the noise that the precision is allowed, and drown in it.

    Args:
        outputs: what an engine answered to the golden images.
        golden: images and the reference's outputs.
        classes: whether the last axis is logits.
        precision: the precision of the artifact.
        tolerance: instead of the precision's own.
        shares: what made probabilities of the last axis; None where it is none.
    """
    held = tolerance or tolerance_for(precision, golden.noise_floor, shares=shares is not None)
    signal_rms = float(np.sqrt(np.mean(np.square(golden.outputs)))) if golden.outputs.size else 0.0
    noise = margin_noise(held, golden.noise_floor, signal_rms)
    parity = compare(outputs, golden.outputs, held, classes=classes, noise=noise, shares=shares)
    floor = held.max_abs if held.max_abs is not None else NOISE_FACTOR * golden.noise_floor
    if parity.max_abs is None:
        return parity
    if parity.ok and golden.spread <= floor:
        why = f"by only {golden.spread:.3g} between images, within the tolerance of {floor:.3g}"
        return _inconclusive(parity, why, golden)
    ignores_images = golden.spread > floor and float(np.ptp(outputs, axis=0).max()) <= floor
    if parity.ok or held.snr_db is None or ignores_images:
        return parity
    spread_rms = float(np.sqrt(np.mean(np.square(golden.outputs - golden.outputs.mean(axis=0)))))
    allowed = tolerated_rms(held.snr_db, signal_rms)
    others = dataclasses.replace(held, **dict.fromkeys(CENTRED))
    if spread_rms > allowed or not compare(outputs, golden.outputs, others, classes=classes, noise=noise).ok:
        return parity
    why = f"by {spread_rms:.3g} (rms) between images, within the allowed noise of {allowed:.3g}"
    return _inconclusive(parity, why, golden)


def _inconclusive(parity: Parity, why: str, golden: Golden) -> Parity:
    alike = bool((golden.images == golden.images[:1]).all())
    hint = "give images that are not all alike" if alike else "is the head still zero?"
    reason = (
        f"inconclusive: the reference's outputs differ {why}, so they cannot tell a right "
        f"answer from a constant one ({hint})"
    )
    return dataclasses.replace(parity, failures=(reason,), inconclusive=True)


def compare(
    outputs: NDArray[Any],
    reference: NDArray[Any],
    tolerance: Tolerance | float,
    *,
    classes: bool,
    noise: float = 0.0,
    shares: Probabilities | None = None,
) -> Parity:
    """All metrics of `outputs` against `reference`, both `(images, …)`; NaN and wrong shapes never pass.

    Args:
        outputs: what an engine answered.
        reference: what it should have answered.
        tolerance: what the metrics are held to; a number is for the largest absolute difference.
        classes: whether the last axis is logits, so that classes can be compared.
        noise: first classes that lead by no more may change without being counted as flips.
        shares: what made probabilities of the last axis; None where it is none.
    """
    held = tolerance if isinstance(tolerance, Tolerance) else Tolerance(max_abs=tolerance)
    nothing = Parity(tolerance=held)
    if outputs.shape != reference.shape:
        return nothing.failed(f"the output has shape {outputs.shape}, expected {reference.shape}")
    if not np.isfinite(outputs).all():
        bad = int((~np.isfinite(outputs)).sum())
        return nothing.failed(f"{bad} of {outputs.size} outputs are NaN or infinite")
    if not reference.size or not np.isfinite(reference).all():
        return nothing.failed("the reference holds no outputs, or some that are NaN or infinite")
    metrics = measure(outputs, reference, classes=classes, noise=noise, shares=shares)
    return Parity(**vars(metrics), tolerance=held, failures=_failures(metrics, held, foreign(classes, shares)))


def foreign(classes: bool, shares: Probabilities | None = None) -> tuple[str, ...]:
    """Metrics that do not apply to outputs which are classes, or are not, or probabilities."""
    of_others = ("token_cosine",) if classes else ("top1_agreement", "top5_agreement", "kl", "flips")
    of_values = ("snr_db", "centred_snr_db", "token_cosine")
    return (*of_others, *(("total_variation",) if shares is None else of_values))


def _failures(metrics: Metrics, tolerance: Tolerance, left_out: Collection[str]) -> tuple[str, ...]:
    failures = []
    for name, limit in tolerance.held().items():
        value, kind = getattr(metrics, name), LIMITS[name]
        if name in left_out:
            continue
        if value is None:
            if metrics.max_abs != 0:  # equal outputs have no noise, and a constant may be right
                failures.append(f"there is no {kind.words}, and it is held to {limit:.3g}{kind.unit}")
        elif not (value <= limit if kind.at_most else value >= limit):
            where = "above" if kind.at_most else "below"
            failures.append(f"{kind.words} {value:.3g}{kind.unit} is {where} the tolerance of {limit:.3g}{kind.unit}")
    return tuple(failures)
