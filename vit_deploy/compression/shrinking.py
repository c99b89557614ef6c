"""Shrinking: the least important heads, hidden units and blocks are removed, and the rest learns to make up for them.

At once or in rounds, each of which removes some, by their importance in the model as the round finds it, and trains
what is left to answer as the original does and to have its tokens.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_deploy.compression import CompressOptions
from vit_deploy.compression.data import Images, order
from vit_deploy.compression.importance import Batch, answers, divergence, importance
from vit_deploy.compression.narrowing import narrow
from vit_deploy.compression.round_state import Round, load_round, load_sizes, of_round, save_round, save_sizes
from vit_deploy.compression.sizes import Importance, Sizes, asked_sizes, mixes, most_important, rounds
from vit_deploy.compression.training import OnEpoch, Original, Progress, Trained, train
from vit_deploy.core.checkpoint import Checkpoint

LOOKED_AT = 512  # images that importance is measured on
BATCH = 64  # of them
MEASURING = "measuring the importance of heads, hidden units and blocks"


def train_smaller(
    checkpoint: Checkpoint,
    options: CompressOptions,
    images: Images,
    held_out: Images,
    *,
    state: Path,
    fingerprint: str,
    progress: Progress = lambda doing: None,
    on_epoch: OnEpoch = lambda record: None,
) -> Trained:
    """Shrink a checkpoint by rounds of removing and training.

    Args:
        checkpoint: the model.
        options: what is to stay.
        images: the images to train on, and to measure importance on.
        held_out: the images to judge by.
        state: folder where the state of the training is kept, and taken up from.
        fingerprint: the fingerprint of the job.
        progress: called with what is being done.
        on_epoch: called with what each epoch gave.

    Raises:
        ConfigError: sizes that the model cannot have.
        EngineError: the loss is not a number any more.
    """
    start = time.perf_counter()
    progress("reading the images to measure importance on")
    batches = looked_at(checkpoint, images, options.seed)
    asked = asked_sizes(options, checkpoint.config) or load_sizes(state, fingerprint)
    found = None
    if asked is None:
        progress(MEASURING)
        found = importance(checkpoint, batches, options.temperature)
        asked = _best_mix(checkpoint, found, batches, options, progress)
        save_sizes(asked, state, fingerprint)
    plan = rounds(options, Sizes.of(checkpoint.config), asked)
    done = load_round(state, fingerprint) or Round(-1, checkpoint, tuple(range(checkpoint.config.num_layers)), ())
    for number, (sizes, epochs) in enumerate(plan[done.number + 1 :], done.number + 1):
        last = number + 1 == len(plan)
        if found is None or number:  # what was measured for the sizes is of the whole model, as round 0 finds it
            progress(f"round {number + 1} of {len(plan)}, {MEASURING}")
            found = importance(done.checkpoint, batches, options.temperature)
        kept = most_important(found, sizes, done.checkpoint.config)
        smaller, blocks = narrow(done.checkpoint, kept), tuple(done.blocks[block] for block in kept.blocks)
        before = sum(short for _, short in plan[:number])

        def counted(record: Mapping[str, Any], before: int = before, last: bool = last) -> dict[str, Any]:
            return {**record, "epoch": record["epoch"] + before, "settled": record["settled"] and last}

        def shown(doing: str, number: int = number) -> None:
            progress(f"round {number + 1} of {len(plan)}, {doing}")

        def told(record: Mapping[str, Any], counted: Any = counted) -> None:
            on_epoch(counted(record))

        trained = train(
            smaller,
            dataclasses.replace(options, epochs=epochs, patience=options.patience if last else 0),
            images,
            held_out,
            state=state,
            fingerprint=of_round(fingerprint, number),
            original=Original(checkpoint, pairs(blocks, checkpoint.config.num_layers)),
            progress=shown,
            on_epoch=told,
        )
        history = [*done.history, *map(counted, trained.history)]
        done = Round(number, dataclasses.replace(smaller, weights=trained.weights), blocks, history)
        save_round(done, state, fingerprint)
    best_epoch = min((epoch for epoch in done.history if epoch["settled"]), key=lambda epoch: epoch["held_out_loss"])
    return Trained(
        done.checkpoint.config,
        done.checkpoint.weights,
        {},
        done.history,
        int(best_epoch["epoch"]),
        time.perf_counter() - start,
    )


def looked_at(checkpoint: Checkpoint, images: Images, seed: int) -> list[Batch]:
    """Images to measure importance on, with their classes."""
    size = min(BATCH, len(images))
    chosen = order(len(images), size, seed, 0)[: -(-LOOKED_AT // size)]
    return [
        (checkpoint.preprocess.normalize(images.read(indices.tolist())), images.labels[indices]) for indices in chosen
    ]


def pairs(blocks: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Each block that stays, and the original's whose tokens it is to give: the last one before the next that stays.

    Args:
        blocks: numbers in the original of those that stay.
        count: blocks of the original.
    """
    following = [*blocks[1:], count]
    return [(index, after - 1) for index, after in enumerate(following)]


def _best_mix(
    checkpoint: Checkpoint, found: Importance, batches: Sequence[Batch], options: CompressOptions, progress: Progress
) -> Sizes:
    """The sizes of those as fast as asked for that leave the answers the nearest before any training."""
    few = batches[: max(len(batches) // 2, 1)]
    right = answers(checkpoint, few)
    tried: list[tuple[float, Sizes]] = []
    for sizes in mixes(checkpoint.config, options.speedup):
        words = f"{sizes.num_layers} blocks of {sizes.num_heads} heads and {sizes.mlp_dim} hidden units"
        progress(f"trying {words}")
        smaller = narrow(checkpoint, most_important(found, sizes, checkpoint.config))
        tried.append((divergence(smaller, few, right), sizes))
    return min(tried, key=lambda each: each[0])[1]
