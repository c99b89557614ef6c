"""Checks of an artifact in other ways of running it, and on inputs that are like no photograph.

Each check takes what `verifying.verify` has found so far and gives checks. fp32 artifacts are held to the tolerance
of their golden images in all of them. Those of other precisions are held to their signal to noise ratio where the
engine may scale activations by the batch they come in, and to finite answers where the input lies outside of the range
that they were calibrated for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.child_processes import isolated_spawning
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.options.commands import ProofOptions
from vit_deploy.errors import EngineError, MissingEngineError
from vit_deploy.runtimes import RuntimeOptions, open_session
from vit_deploy.verification.adversarial import VERY_LARGE, adversarial_images, adversarial_pixels
from vit_deploy.verification.parity import compare, form_of
from vit_deploy.verification.preprocessing import photo_problems
from vit_deploy.verification.tolerances import NOISE_FACTOR, Tolerance
from vit_deploy.verification.verifying import GROUP, Check, CheckContext, CheckFunction

BATCHES = (1, 2, 7)
DISTINCT = 3  # images of which they are made, in turn


def repeats(context: CheckContext) -> list[Check]:
    """Whether a second run gives what the first gave."""
    first, again = (context.session.infer(context.golden.images[:1]) for _ in range(2))
    alike = Tolerance(max_abs=NOISE_FACTOR * context.golden.noise_floor)
    return [_compared("repeated run", again, first, alike)]


def batches(context: CheckContext) -> list[Check]:
    """Whether batches of several sizes give what their images give one by one; of files made for any batch."""
    if context.artifact.input.batch is not None:
        return []
    images = context.golden.images[:DISTINCT]
    alone = np.concatenate([context.session.infer(image[None]) for image in images])
    held = _alike(context)
    found = [_compared("batch of 1", alone, context.outputs[: len(images)], held)]
    for size in BATCHES[1:]:
        order = np.arange(size) % len(images)
        together = context.session.infer(images[order])
        check = _compared(f"batch of {size}", together, alone[order], held)
        if check.ok and held.max_abs is None:
            check = dataclasses.replace(check, words=_mates(context, together, alone[order]))
        found.append(check)
    return found


def _mates(context: CheckContext, together: NDArray[Any], alone: NDArray[Any]) -> str:
    """What an image's answer owes to the others of its batch, in words; nothing where it is rounding alone."""
    apart = float(np.abs(together - alone).max())
    if apart <= NOISE_FACTOR * context.golden.noise_floor:
        return ""
    said = f"allowed, but an image's answer depends on the others of its batch, by up to {apart:.2g}"
    if form_of(context.artifact).classes:
        changed = int((together.argmax(axis=-1) != alone.argmax(axis=-1)).sum())
        said += f"; {changed} of {len(alone)} have another first class than alone"
    return said


def adversarial(context: CheckContext) -> list[Check]:
    """Whether it answers inputs that are like no photograph as the reference does; finitely, where none is recorded."""
    hard, artifact = context.golden.adversarial, context.artifact
    if hard is None:
        shape = context.golden.images.shape[1:]
        inside = artifact.input.preprocessing_inside
        images = adversarial_pixels(shape) if inside else adversarial_images(shape, artifact.preprocess)
        return [_unreferenced(context, name, image) for name, image in images.items()]
    exact = context.tolerance.max_abs
    if exact is None:
        return [_unreferenced(context, name, image) for name, image in zip(hard.names, hard.images, strict=True)]
    # A tolerance that was requested is as many times the floor here as it is on the golden images.
    factor = exact / context.golden.noise_floor
    return [
        _compared(
            f"{name} input",
            context.golden.part_of(context.session.infer(image[None])),
            truth[None],
            Tolerance(max_abs=factor * float(floor)),
        )
        for name, image, truth, floor in zip(hard.names, hard.images, hard.outputs, hard.floors, strict=True)
    ]


def _unreferenced(context: CheckContext, name: str, image: NDArray[Any]) -> Check:
    title = f"{name} input"
    if context.tolerance.max_abs is None and name == VERY_LARGE:
        return Check(title, True, "left out: beyond the range that such a precision holds")
    outputs = context.golden.part_of(context.session.infer(image[None]))
    return _compared(title, outputs, np.zeros((1, *context.golden.outputs.shape[1:])), Tolerance())


def preprocessing(context: CheckContext) -> list[Check]:
    """Whether the recorded image file still becomes the pixels that it became at the export."""
    recorded, artifact = context.golden.photo, context.artifact
    if recorded is None:
        return []
    try:
        wrong = photo_problems(recorded, artifact.preprocess, artifact.config.image_size)
    except MissingEngineError as error:
        return [Check("preprocessing", True, f"left out: {error.message}")]
    return [Check("preprocessing", not wrong, "; ".join(wrong))]


def on_arm(context: CheckContext) -> list[Check]:
    """What an Arm processor with half arithmetic would give, where this is none and the file differs there."""
    try:
        from vit_deploy.verification.arm_half import on_arm_in_half
    except ModuleNotFoundError:  # another machine, to which it does not travel
        return []
    return on_arm_in_half(context)


ALWAYS: tuple[CheckFunction, ...] = (repeats, batches, adversarial, preprocessing, on_arm)
"""Checks of every artifact, unless only the golden images are requested."""


def checks_for(options: ProofOptions, *, simulated: bool = False) -> tuple[CheckFunction, ...]:
    """The checks beside the golden images.

    Args:
        options: of the command.
        simulated: whether a processor is simulated, which takes too long for more.
    """
    usual = () if options.quick or simulated else ALWAYS
    return (*usual, threads(options.threads)) if options.threads else usual


def threads(counts: Sequence[int]) -> CheckFunction:
    """Whether the engine gives the same with each of these numbers of threads."""

    def check(context: CheckContext) -> list[Check]:
        images = context.golden.images[:GROUP]
        found = []
        for count in counts:
            options = dataclasses.replace(context.options, threads=count)
            outputs = _answer_with(context.artifact, context.runtime, options, images)
            title = f"{count} thread{'s' if count > 1 else ''}"
            found.append(_compared(title, outputs, context.outputs[:GROUP], _alike(context)))
        return found

    return check


def _answer_with(artifact: Artifact, runtime: str, options: RuntimeOptions, images: NDArray[Any]) -> NDArray[Any]:
    if not FORMATS.runtimes()[runtime].keeps_threads:
        return _answer(artifact, runtime, options, images)
    with isolated_spawning(), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        try:
            return apart.submit(_answer, artifact, runtime, options, images).result()
        except BrokenProcessPool as error:
            raise EngineError(
                f"{runtime} died while it ran {artifact.model_path} with {options.threads} threads",
                fix="give the machine more memory, or leave --threads out",
            ) from error


def _answer(artifact: Artifact, runtime: str, options: RuntimeOptions, images: NDArray[Any]) -> NDArray[Any]:
    with open_session(artifact, runtime, options) as session:
        outputs: NDArray[Any] = session.infer(images)
    return outputs


def _alike(context: CheckContext) -> Tolerance:
    """What answers to the same images may differ by."""
    if context.tolerance.max_abs is None and context.tolerance.snr_db is not None:
        return Tolerance(snr_db=context.tolerance.snr_db)
    floor = NOISE_FACTOR * context.golden.noise_floor
    return Tolerance(max_abs=floor if context.tolerance.max_abs is None else context.tolerance.max_abs)


def _compared(title: str, outputs: NDArray[Any], expected: NDArray[Any], held: Tolerance) -> Check:
    found = compare(outputs, expected, held, classes=False)
    return Check(title, found.ok, "; ".join(found.failures))
