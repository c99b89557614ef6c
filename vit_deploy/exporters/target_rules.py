"""What the compiler or converter of a target needs of a file: its batch, its opset, its layout, its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vit_deploy.core.format import Target
from vit_deploy.errors import ConfigError
from vit_deploy.exporters import USUAL_OPSET

DYNAMIC = "dynamic"


@dataclass(frozen=True)
class Rules:
    """What a target needs.

    Args:
        fixed_batch: whether a file is for a known number of images, one unless another is asked for.
        most_images: the most images a call; None for any number.
        most_opset: the newest opset that is read, which is also what is written; None for the usual one.
        layout: the only layout of the input; empty where both will do.
        instead_of_pixels: what to do where pixels are the input, which are not taken; empty where they are.
    """

    fixed_batch: bool = False
    most_images: int | None = None
    most_opset: int | None = None
    layout: str = ""
    instead_of_pixels: str = ""


ANY = Rules()
RULES: Mapping[Target, Rules] = {
    Target.QNN: Rules(fixed_batch=True),
    Target.TRANSFORMERS_JS: Rules(layout="nchw"),
    Target.RKNN: Rules(
        fixed_batch=True,
        most_images=1,
        most_opset=19,
        layout="nchw",
        instead_of_pixels="leave it out, and give mean_values and std_values to the converter's config",
    ),
    Target.COREML: Rules(
        fixed_batch=True,
        instead_of_pixels="leave it out, and give the converter an ImageType with scale and bias",
    ),
    Target.TPU_MLIR: Rules(fixed_batch=True, most_opset=19, layout="nchw"),
}


def rules_of(target: Target) -> Rules:
    """What a target needs."""
    return RULES.get(target, ANY)


def batch_for(target: Target, requested: int | str | None, *, fixed: bool) -> int | None:
    """The images a call of a file; None for any number.

    Args:
        target: what it is made for.
        requested: a number, "dynamic", or None for the usual.
        fixed: whether the format has a fixed batch, whatever it is made for.
    """
    if requested in (None, DYNAMIC):
        return 1 if fixed or rules_of(target).fixed_batch else None
    return int(requested or 0)


def opset_for(target: Target, requested: int | None) -> int:
    """The opset of a file.

    Args:
        target: what it is made for.
        requested: a number, or None for the usual.
    """
    return requested or min(rules_of(target).most_opset or USUAL_OPSET, USUAL_OPSET)


def refuse_unfit(target: Target, *, batch: int | str | None, opset: int | None, pixels: bool = False) -> None:
    """Refuse what a target does not take.

    Args:
        target: what files are made for.
        batch: the requested batch.
        opset: the requested opset.
        pixels: whether the input is to be pixels.

    Raises:
        ConfigError: such a request.
    """
    rules = rules_of(target)
    if rules.fixed_batch and batch == DYNAMIC:
        raise ConfigError(f"files for {target} have a fixed batch, and --batch is dynamic", fix="give a number")
    if rules.most_images is not None and batch not in (None, DYNAMIC) and int(batch or 0) > rules.most_images:
        raise ConfigError(f"{target} reads files of one image a call, and --batch is {batch}", fix="leave --batch out")
    if rules.most_opset is not None and opset is not None and opset > rules.most_opset:
        raise ConfigError(
            f"{target} reads files up to opset {rules.most_opset}, and --opset is {opset}", fix="leave --opset out"
        )
    if pixels and rules.instead_of_pixels:
        raise ConfigError(
            f"{target} reads files whose input is float32, and --include-preprocessing makes it uint8 pixels",
            fix=rules.instead_of_pixels,
        )
