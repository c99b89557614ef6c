"""Options of `verify` that say what artifacts are held to and compared with, and what is reported where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vit_deploy.core.options.option import Option, panel

MAX_IMAGES = 64


@panel("Tolerance")
@dataclass(frozen=True)
class ToleranceOptions:
    """What artifacts are held to.

    Args:
        tolerance: limits as "max_abs=1e-4", in place of those of pyproject.toml and the precision's own.
        allow_tf32: whether a GPU may round fp32 products to 11 bits; has its own tolerance.
    """

    tolerance: Annotated[
        tuple[str, ...],
        Option(
            metavar="METRIC=LIMIT",
            help="Instead of the default, as max_abs=1e-4 or snr_db=25; repeat, or join by commas.",
            show_default=False,
            commas=True,
        ),
    ] = ()
    allow_tf32: Annotated[bool, Option(help="Let a GPU round fp32 products to 11 bits; has its own tolerance.")] = False


@panel("Comparing")
@dataclass(frozen=True)
class ReferenceOptions:
    """What artifacts are compared with; only the machine that has the checkpoint can be asked.

    Args:
        against: checkpoint or artifact to compare with; None for the recorded outputs.
        images: folder of image files to compare on; None for the golden images.
        max_images: how many of them, by name.
        layout: layout of the input of a bare file; None reads it from the shape.
        values: "normalized" or "pixels", which the input of a bare file takes; None reads it from the type.
        output: name of the output of a bare file that counts; None for its only one.
        simulate: a processor that is not here, whose int8 or fp16 products are computed, or "fp16" or "bf16": an engine
            that computes a file of floats in 16 bits, by the reference of `against`.
        locate: whether the activation and the operator are named where a failing artifact goes wrong.
    """

    against: Annotated[
        Path | None,
        Option(metavar="CHECKPOINT|ARTIFACT", help="What to compare with.", show_default="the recorded answers"),
    ] = None
    images: Annotated[
        Path | None,
        Option(metavar="DIR", help="Image files to compare on; needs --against.", show_default="golden images"),
    ] = None
    max_images: Annotated[int, Option(min=1, help="How many of them, by name.")] = MAX_IMAGES
    layout: Annotated[
        str | None,
        Option(metavar="nhwc|nchw", help="Of the input of a bare file.", show_default="by its shape"),
    ] = None
    values: Annotated[
        str | None,
        Option(
            metavar="normalized|pixels",
            help="What the input of a bare file takes.",
            show_default="by its type",
        ),
    ] = None
    output: Annotated[
        str | None,
        Option(metavar="NAME", help="Which output of a bare file counts.", show_default="its only one"),
    ] = None
    simulate: Annotated[
        str | None,
        Option(
            metavar="no-vnni|arm-fp16|fp16|bf16",
            help="Compute ONNX files as a processor that is not here: int8 on x86 without VNNI, fp16 on Arm; or any "
            "file of floats as an engine that rounds every operator to 16 bits (needs --against CHECKPOINT).",
            show_default=False,
        ),
    ] = None
    locate: Annotated[bool, Option(help="Name the tap and the operator where a failing artifact goes wrong.")] = False


@panel("Reports")
@dataclass(frozen=True)
class ReportFiles:
    """Report files, which replace those of an earlier run.

    Args:
        junit: file for a JUnit report.
        markdown: file for a summary for a pull request.
    """

    junit: Annotated[
        Path | None,
        Option(metavar="FILE", help="Write a JUnit report; replaces an earlier one.", show_default=False),
    ] = None
    markdown: Annotated[
        Path | None,
        Option(metavar="FILE", help="Write a summary for a pull request, likewise.", show_default=False),
    ] = None
