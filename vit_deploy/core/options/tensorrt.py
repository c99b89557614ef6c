"""Options of everything that builds TensorRT plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from vit_deploy.core.config_checks import is_count
from vit_deploy.core.options.option import Option, panel
from vit_deploy.core.options.parsing import counts
from vit_deploy.errors import ConfigError, UsageError

FULL, RTX = "tensorrt", "tensorrt_rtx"  # the modules, and what manifests call them
FLAVOURS: Mapping[str, str] = {"full": FULL, "rtx": RTX}


@dataclass(frozen=True)
class BatchRange:
    """Images a call that a plan takes.

    Args:
        least: number of images.
        best: that it is made fastest for.
        most: number of images.

    Raises:
        ConfigError: numbers that are not in this order, or not positive.
    """

    least: int = 1
    best: int = 8
    most: int = 32

    def __post_init__(self) -> None:
        sides = (self.least, self.best, self.most)
        if not all(map(is_count, sides)) or not 1 <= self.least <= self.best <= self.most:
            raise ConfigError(
                f"the batches of a plan are {', '.join(map(str, sides))}; expected the least, the best and the most, "
                "none below the one before it",
                fix="as in --batch-range 1,8,32",
            )

    def __str__(self) -> str:
        if self.least == self.most:
            return str(self.most)
        return f"{self.least} to {self.most}, best {self.best}"


def flavour(text: str) -> str:
    """The module that builds plans.

    Raises:
        ValueError: no such TensorRT.
    """
    if text not in FLAVOURS:
        raise ValueError(" or ".join(FLAVOURS))
    return FLAVOURS[text]


def batch_range(text: str) -> BatchRange:
    """Batches from "1,8,32".

    Raises:
        UsageError: no numbers.
        ConfigError: not three of them, or not in order.
    """
    sides: list[int] = []
    for part in text.split(","):
        try:
            sides += counts(part)
        except ValueError as error:
            raise UsageError(f"--batch-range is {part!r}; expected {error}") from error
    if len(sides) != 3:
        raise ConfigError(
            f"--batch-range is {text!r}; expected the least, the best and the most images a call",
            fix="as in --batch-range 1,8,32",
        )
    return BatchRange(*sides)


@panel("TensorRT plans")
@dataclass(frozen=True)
class PlanOptions:
    """How TensorRT plans are built.

    Args:
        flavour: the module that builds them, "tensorrt" or "tensorrt_rtx"; None takes the former where it is installed
            and a GPU is there.
        batches: images a call, where the graph leaves that open.
        allow_tf32: whether factors of fp32 products may be rounded to 11 bits, as TensorRT does by itself.
        unproven: whether they are published without a proof, under another name.
    """

    flavour: Annotated[
        str | None,
        Option(
            names=("--tensorrt",),
            metavar="full|rtx",
            help="What builds TensorRT plans: TensorRT, or TensorRT for RTX, which needs no GPU for that.",
            show_default="full where it and a GPU are",
            parse=flavour,
            values=tuple(FLAVOURS),
        ),
    ] = None
    batches: Annotated[
        BatchRange,
        Option(
            names=("--batch-range",),
            metavar="MIN,BEST,MAX",
            help="Images a call of TensorRT plans with an open batch.",
            show_default="1,8,32",
            parse=batch_range,
        ),
    ] = BatchRange()
    allow_tf32: Annotated[bool, Option(help="Let fp32 plans round factors to 11 bits; has its own tolerance.")] = False
    unproven: Annotated[
        bool, Option(help="Publish TensorRT plans without proof, as <name>.unproven; exits with 1.")
    ] = False
