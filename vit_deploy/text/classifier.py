"""A classifier of what a model sees in images, made of what it reads in words.

After Radford et al. 2021 (arXiv 2103.00020), section 3.1: the embeddings of the texts are the weights of a linear
classifier on the image's, both of unit length; several texts about a class are averaged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Pooling, Probabilities
from vit_deploy.errors import CheckpointError
from vit_deploy.text.prompts import Prompt
from vit_deploy.text.tokens import Tokenizer, tokenized
from vit_deploy.text.tower import TextTower, embed

STEP = "classes from words"  # in the provenance
LISTED = 5


def classifier(
    checkpoint: Checkpoint,
    tower: TextTower,
    tokenizer: Tokenizer,
    classes: Sequence[str],
    prompts: Sequence[Prompt],
    *,
    progress: Callable[[str], object] = lambda text: None,
) -> Checkpoint:
    """The model of images with a head for these classes, whose logits are those of the whole model.

    Args:
        checkpoint: the model of images, whose head, if there is one, leads to where images and texts are compared.
        tower: of texts.
        tokenizer: its own.
        classes: names, in the order of the outputs.
        prompts: that each is put into; what they give is averaged.
        progress: called with what is being done.

    Raises:
        CheckpointError: towers that do not lead to vectors of one width.
        MissingEngineError: what repairs texts is not installed, and there are some that are no plain ASCII.
    """
    projected = _projected(checkpoint)
    config = projected.config
    width = config.pre_logits_dim or config.pooled_dim
    if width != tower.dim:
        raise CheckpointError(
            f"images become {width} numbers and texts {tower.dim}, which cannot be compared",
            fix="give the whole model, with both projections",
        )
    texts = [prompt.of(name) for name in classes for prompt in prompts]
    tokens = tokenized(tokenizer, texts, tower.config.context)
    said = f"reading {len(classes)} classes in {len(prompts)} prompt{'' if len(prompts) == 1 else 's'}"
    embeddings = embed(tower, tokens, progress=lambda share: progress(f"{said}: {share:.0%}"))
    vectors = averaged(embeddings.reshape(len(classes), len(prompts), -1))
    # The head reads vectors whose mean square is one, which are longer than those of length one by this factor.
    kernel = vectors.T * (tower.scale / np.sqrt(width))
    topped = config.replace(
        include_top=True,
        num_classes=len(classes),
        head_norm=True,
        probabilities=Probabilities.SIGMOID if tower.by_itself else Probabilities.SOFTMAX,
    )
    weights = {
        **projected.weights,
        "head.kernel": np.ascontiguousarray(kernel, np.float32),
        "head.bias": np.full(len(classes), tower.bias, np.float32),
    }
    made = dataclasses.replace(checkpoint, config=topped, weights=weights, labels=tuple(classes))
    facts = {"classes": len(classes), "prompts": [prompt.text for prompt in prompts], "scale": tower.scale}
    cut = {"cut": [texts[row] for row in tokens.cut[:LISTED]], "cut_texts": len(tokens.cut)} if tokens.cut else {}
    alike = _alike(tokens.numbers.reshape(len(classes), -1), classes)
    same = {"alike": alike} if alike else {}
    return made.with_step(STEP, **facts, context=tower.config.context, **cut, **same)


def _alike(rows: NDArray[np.int64], classes: Sequence[str]) -> list[list[str]]:
    """Classes whose texts come to the same tokens, so that nothing tells them apart."""
    groups: dict[bytes, list[str]] = {}
    for row, name in zip(rows, classes, strict=True):
        groups.setdefault(row.tobytes(), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def averaged(embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Embeddings `(classes, prompts, dim)` as one vector of unit length a class, as CLIP averages them."""
    vectors = _unit(embeddings).mean(axis=1)
    return _unit(vectors) if embeddings.shape[1] > 1 else vectors


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / lengths


def _projected(checkpoint: Checkpoint) -> Checkpoint:
    """The model with the projection that was read as its head in front of the head to come."""
    config = checkpoint.config
    if not config.include_top:
        if config.effective_pooling is None:
            raise CheckpointError(
                "it gives a vector for each part of an image, and none for all of it",
                fix="give the whole model, with the pooling of its images",
            )
        return checkpoint
    if config.pre_logits_dim:
        raise CheckpointError(
            "a pooler stands in front of its projection", fix="give a model whose projection reads what is pooled"
        )
    bare = config.replace(
        include_top=False,
        pooling=config.effective_pooling or Pooling.CLS,
        pre_logits_dim=config.num_classes,
        pre_logits_linear=True,
    )
    weights = {
        name.replace("head.", "pre_logits.", 1) if name.startswith("head.") else name: weight
        for name, weight in checkpoint.weights.items()
    }
    return dataclasses.replace(checkpoint, config=bare, weights=weights, labels=())
