"""Options of everything that reads a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from vit_deploy.core.options.option import Option, panel
from vit_deploy.core.options.parsing import numbers

Mean = Annotated[
    float | Sequence[float] | None,
    Option(
        metavar="R,G,B",
        help="Of pixels in 0..1, in place of a checkpoint's own; one for all channels.",
        show_default="recorded",
        parse=numbers,
    ),
]
Std = Annotated[
    float | Sequence[float] | None,
    Option(metavar="R,G,B", help="Likewise, what is divided by.", show_default="recorded", parse=numbers),
]
Labels = Annotated[
    str | Path | Sequence[str] | None,
    Option(
        metavar="FILE",
        help="Names of a checkpoint's classes, one a line, or as JSON a list or an id2label.",
        show_default="recorded",
    ),
]


@panel("Reading a checkpoint")
@dataclass(frozen=True)
class CheckpointOptions:
    """What a checkpoint does not say, or is to be read otherwise than it says.

    Args:
        config: fields of the config, `labels` and `preprocess`, as a mapping or a JSON file that holds them.
        num_heads: attention heads.
        epsilon: of the normalization layers.
        activation: name of the activation function of the feed-forward layers.
        architecture: timm's name of the model, where the checkpoint names none.
        adapter: folder of a LoRA adapter that is merged into the weights.
        mean: of pixels in 0..1, one for each channel or one for all.
        std: standard deviation of pixels, likewise.
        labels: names of the classes, or a file that holds them.
        weights: key of the model that is taken of a checkpoint that holds several.
        tower: part of the path of the encoder that is taken of a checkpoint that has several.
        ignore: patterns of names of tensors that are left out, with `*` for any characters.
        head_file: a file that holds the head alone.
        no_head: whether the checkpoint is read without its head, so that it gives features.
        require_licence: licences, of which the model's card has to state one.
        classes: names of classes that the model's text tower reads for a head of them, or a file that holds them.
        template: prompts that each is put into, whose embeddings are averaged, or names or files of some.
        tokenizer: folder or file of the text tower's tokenizer, where it is not beside the weights.
    """

    config: Annotated[
        str | Path | Mapping[str, Any] | None,
        Option(
            help="What the checkpoint does not say, as an object: fields of the config as inspect --json shows them "
            '(image_size, num_heads, pooling, …), labels, and preprocess {"mean", "std", "resize", …}.',
            metavar="FILE.json",
        ),
    ] = None
    num_heads: Annotated[int | None, Option(min=1, help="Attention heads, where the checkpoint does not say it.")] = (
        None
    )
    epsilon: Annotated[float | None, Option(help="Of the norms, where the checkpoint does not say it.")] = None
    activation: Annotated[
        str | None, Option(metavar="NAME", help="gelu, gelu_tanh, quick_gelu, …, where it does not say it.")
    ] = None
    architecture: Annotated[
        str | None,
        Option(
            metavar="NAME", help="timm's name of a model, as vit_base_patch16_224, for what its weights do not show."
        ),
    ] = None
    adapter: Annotated[
        Path | None, Option(metavar="FOLDER", help="A LoRA adapter of PEFT that is merged into the weights.")
    ] = None
    mean: Mean = None
    std: Std = None
    labels: Labels = None
    weights: Annotated[
        str | None,
        Option(
            metavar="KEY",
            help="Which model of a checkpoint that holds several, as state_dict or student.",
            show_default="averaged ones, a teacher, a target",
        ),
    ] = None
    tower: Annotated[
        str | None,
        Option(metavar="NAME", help="Which encoder of images of a checkpoint that has several, by a part of its path."),
    ] = None
    ignore: Annotated[
        tuple[str, ...],
        Option(metavar="PATTERN", help="Leave tensors of a checkpoint out by name, as 'decoder.*'.", commas=True),
    ] = ()
    head_file: Annotated[
        Path | None,
        Option(names=("--head",), metavar="FILE", help="A file with the head of a checkpoint that has none."),
    ] = None
    no_head: Annotated[bool, Option(help="Read a checkpoint without its head: it gives features.")] = False
    require_licence: Annotated[
        tuple[str, ...],
        Option(
            metavar="LICENCE",
            help="Refuse a model whose card states none of these, as apache-2.0,mit; exits with 1.",
            commas=True,
        ),
    ] = ()
    classes: Annotated[
        str | Path | Sequence[str] | None,
        Option(
            metavar="FILE",
            help="Names of classes, one a line, that a CLIP or SigLIP reads and then tells apart in images.",
            show_default=False,
        ),
    ] = None
    template: Annotated[
        tuple[str, ...],
        Option(
            metavar="TEXT",
            help="A text with {} for a class, openai-80, openai-7, siglip, or a file of texts; repeat for their mean.",
            show_default="a photo of a {}",
        ),
    ] = ()
    tokenizer: Annotated[
        Path | None,
        Option(metavar="FOLDER", help="The tokenizer for --classes.", show_default="beside the weights"),
    ] = None
