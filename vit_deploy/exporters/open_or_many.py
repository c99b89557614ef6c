"""Sizes of images that exported files are asked to be for: one, any, or several in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import RelativePositions
from vit_deploy.core.config import Size, in_words
from vit_deploy.core.format import Format, Target
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.image_sizes import DYNAMIC, proving_sizes
from vit_deploy.core.open_positions import SAMPLINGS
from vit_deploy.core.resize import FILTERS, Convention, as_convention, check_positions, convention_of, resize
from vit_deploy.errors import ConfigError


@dataclass(frozen=True)
class Sizes:
    """The sizes that were asked for.

    Args:
        is_dynamic: whether height and width are open.
        pixels: (height, width) of each of several; empty for one, which the checkpoint then has.
        like: whose way of resampling positions; None follows the checkpoint.
    """

    is_dynamic: bool = False
    pixels: tuple[Size, ...] = ()
    like: Convention | None = None

    @classmethod
    def asked(cls, given: Sequence[Size | str], like: str | None) -> Sizes:
        """Of what `--image-size` says, as often as it stands there.

        Raises:
            ConfigError: dynamic beside a size, or no such convention.
        """
        convention = None if like is None else as_convention(like)
        if DYNAMIC in given:
            if len(given) > 1:
                raise ConfigError(
                    "--image-size is dynamic, which is every size, and others are given beside it",
                    fix="leave the others out, or leave dynamic out",
                )
            return cls(is_dynamic=True, like=convention)
        sizes = tuple(dict.fromkeys(size for size in given if not isinstance(size, str)))
        return cls(pixels=sizes if len(sizes) > 1 else (), like=convention)

    @property
    def in_words(self) -> str:
        """For the name of a folder; empty for one size."""
        return DYNAMIC if self.is_dynamic else "-".join(map(in_words, self.pixels))

    def fit(self, format: Format) -> bool:
        """Whether a format has files for them."""
        if self.is_dynamic:
            return format.opens_sizes
        return format.joins_sizes or not self.pixels

    def check(self, formats: Sequence[str], target: Target) -> None:
        """Refuse formats and targets that have no such files.

        Raises:
            ConfigError: what is refused, by name.
        """
        unfit = [FORMATS[name].title for name in dict.fromkeys(formats) if not self.fit(FORMATS[name])]
        fitting = " or ".join(name for name, record in FORMATS.items() if record.precisions and self.fit(record))
        if unfit and self.is_dynamic:
            raise ConfigError(
                f"--image-size is dynamic, and {' and '.join(unfit)} files are made for sizes that are known",
                fix=f"choose --format {fitting}, or give one size",
            )
        if unfit:
            raise ConfigError(
                f"--image-size is given {len(self.pixels)} sizes, and {' and '.join(unfit)} files are for one size",
                fix=f"choose --format {fitting}, or give one size" if fitting else "give one size",
            )
        if self.is_dynamic and target not in (Target.CPU, Target.WEB):
            raise ConfigError(
                f"--image-size is dynamic, and files for {target} are made for one size",
                fix="leave --for out, or give one size",
            )

    def of(self, checkpoint: Checkpoint) -> tuple[Checkpoint, tuple[Checkpoint, ...]]:
        """A checkpoint as it is exported, and resized to each further size that a file is for or is proven at.

        Each is resized from the checkpoint itself, so that nothing is resampled twice.

        Raises:
            ConfigError: a model that is not to be had for such sizes, with the reason.
        """
        if self.is_dynamic:
            refuse_closed(checkpoint, self.like)
        sizes = proving_sizes(checkpoint.config) if self.is_dynamic else self.pixels
        resized = [resize(checkpoint, size, like=self.like) for size in sizes]
        return (resized[0], tuple(resized[1:])) if resized else (checkpoint, ())


ONE_SIZE = Sizes()


def refuse_closed(checkpoint: Checkpoint, like: Convention | None) -> None:
    """Refuse a model whose positions cannot be computed for a size that is not known.

    Raises:
        ConfigError: with the reason.
    """
    relative = checkpoint.config.relative_positions
    if relative is not RelativePositions.NONE:
        raise ConfigError(
            f"--image-size is dynamic, and the model has relative positions ({relative}), which files hold as they are "
            "gathered for one size",
            fix="give one size",
        )
    if like is None:
        check_positions(checkpoint)
    convention = convention_of(checkpoint, like)
    if FILTERS[convention].positions not in SAMPLINGS:
        raise ConfigError(
            f"--image-size is dynamic, and positions resampled like {convention} cannot be computed from standard "
            "operators",
            fix="give one size, or another convention with --like",
        )
