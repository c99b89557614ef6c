"""Training of a wrapped Keras 2 model to answer as the original does, on images and their classes.

AdamW with a warm-up and a cosine to zero; the loss is a share of the distance from the uncompressed model's softened
answers (Hinton et al. 2015) and of the distance from the classes. What is kept is the state after the epoch with the
least of that loss on images that are held out, of those in which the model is as compressed as it was asked to be; see
`compression.history`. Everything random follows from the seed and the number of the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from vit_deploy.compression import METHODS, CompressOptions
from vit_deploy.compression.augment import Augment
from vit_deploy.compression.data import Images, order
from vit_deploy.compression.history import bar, best, duration, in_words, is_best, is_over
from vit_deploy.compression.keras2 import Twin, build
from vit_deploy.compression.method import Method
from vit_deploy.compression.state import State, load_state, save_state
from vit_deploy.core.checkpoint import Checkpoint, Ranges
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import Float32
from vit_deploy.errors import EngineError

SAVE_S = 180.0  # between two states that are written within an epoch
LOOKED_AT = 8  # batches that a method may look at to begin with
JUDGED = 256  # held-out images a call
EPSILON = 1e-6  # for tokens that do not vary
NEUTRAL = {".scale": 1.0, ".bias": 0.0}  # of norms whose scale or bias was moved into the products behind them

Progress = Callable[[str], object]
OnEpoch = Callable[[Mapping[str, Any]], object]


@dataclass(frozen=True, eq=False)
class Original:
    """What a smaller model is trained to answer as.

    Args:
        checkpoint: the larger model.
        pairs: numbers of blocks of both, the smaller one's first, behind which the tokens are to be the same.
    """

    checkpoint: Checkpoint
    pairs: Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of a training.

    Args:
        config: of the model, whose sizes may be others than those it had.
        weights: the weights by canonical name.
        ranges: the ranges of activations that were learned.
        history: what each epoch gave; see `compression.history`.
        best_epoch: whose weights these are, from 1.
        seconds: that this run took.
    """

    config: ViTConfig
    weights: Mapping[str, Float32]
    ranges: Ranges
    history: Sequence[Mapping[str, Any]]
    best_epoch: int
    seconds: float


def train(
    checkpoint: Checkpoint,
    options: CompressOptions,
    images: Images,
    held_out: Images,
    *,
    state: Path,
    fingerprint: str,
    original: Original | None = None,
    progress: Progress = lambda doing: None,
    on_epoch: OnEpoch = lambda record: None,
) -> Trained:
    """Compress a checkpoint by training; see `vit_deploy.compression`.

    Args:
        checkpoint: the model, its norms folded.
        options: what to do.
        images: the images to train on.
        held_out: the images to judge by.
        state: folder where the state of the training is kept, and taken up from.
        fingerprint: the fingerprint of the job.
        original: the model to answer as, where it is another than `checkpoint`; then every weight is trained.
        progress: called with what is being done.
        on_epoch: called with what each epoch gave, as in `Trained.history`.

    Raises:
        EngineError: the loss is not a number any more.
    """
    start = time.perf_counter()
    tf_keras.utils.set_random_seed(options.seed)
    run = _Run(checkpoint, options, images, held_out, original)
    found = load_state(state, fingerprint)
    if found is None:
        batches = order(len(images), min(options.batch, len(images)), options.seed, 0)[:LOOKED_AT]
        run.method.begin(run.twin, [checkpoint.preprocess.normalize(images.read(batch.tolist())) for batch in batches])
        found = State()
        if run.method.is_settled(0):
            found = State(history=[run.record(0, None, 0)])
    else:
        _assign(run.kept, found.variables)
    history, kept = [dict(epoch) for epoch in found.history], list(found.best)
    saved = began = time.perf_counter()
    for step, indices in run.steps(found.step):
        if step % run.steps_per_epoch == 0 or time.perf_counter() - saved > SAVE_S:
            if step > found.step:
                save_state(State(step, _values(run.kept), kept, history), state, fingerprint)
                saved = time.perf_counter()
            if is_over(history, options.patience):
                break
        epoch = step // run.steps_per_epoch + 1
        left_s = (time.perf_counter() - began) / max(step - found.step, 1) * (run.total - step)
        shown = f"epoch {epoch} of {options.epochs}, step {step + 1} of {run.total} {bar(step, run.total)}"
        gave = f" {in_words(history[-1])}" if history else ""
        progress(f"{shown}{gave}{'' if step == found.step else f', {duration(left_s)} left'}")
        loss = run.step(indices, step)
        if not np.isfinite(loss):
            raise EngineError(
                f"the loss is {loss} at step {step + 1}", fix=f"train with less than --lr {options.learning_rate}"
            )
        if (step + 1) % run.steps_per_epoch == 0:
            run.method.end_epoch()
            record = run.record(epoch, loss, step + 1)
            if is_best(record, history):
                kept = _values(run.model_variables)
            history.append(record)
            on_epoch(record)
    if kept:
        _assign(run.model_variables, kept)
    run.method.end_epoch()
    weights = run.twin.weights(run.method.kernels())
    best_epoch = int((best(history) if kept else history[-1])["epoch"])
    return Trained(checkpoint.config, weights, run.method.ranges(), history, best_epoch, time.perf_counter() - start)


class _Run:
    """The models, the optimizer and the images of one training."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: CompressOptions,
        images: Images,
        held_out: Images,
        original: Original | None,
    ) -> None:
        self.options, self.images, self.held_out, self.checkpoint = options, images, held_out, checkpoint
        self.batch = min(options.batch, len(images))
        self.steps_per_epoch = -(-len(images) // self.batch)
        self.total = options.epochs * self.steps_per_epoch
        layers = options.layers(checkpoint.config)
        self.method: Method = METHODS.load(options.method)(options, layers, self.total)
        neutral = [
            name
            for name, value in checkpoint.weights.items()
            for part, plain in NEUTRAL.items()
            if original is None and "norm" in name and name.endswith(part) and (value == plain).all()
        ]
        self.twin: Twin = build(checkpoint, self.method.wrap, neutral)
        teacher = build(checkpoint if original is None else original.checkpoint)
        self.teacher = teacher.model if options.distill else None
        self.both: tuple[Any, Any] | None = None
        if original is not None and options.distill_tokens:
            self.both = (
                _with_tokens(self.twin, [own for own, _ in original.pairs]),
                _with_tokens(teacher, [other for _, other in original.pairs]),
            )
        self.augment = Augment(options.augment, options.seed)
        warm = int(options.warmup * self.total)
        rate = tf_keras.optimizers.schedules.CosineDecay(
            0.0 if warm else options.learning_rate,
            max(self.total - warm, 1),
            warmup_target=options.learning_rate if warm else None,
            warmup_steps=warm,
        )
        self.optimizer = tf_keras.optimizers.AdamW(rate, weight_decay=options.weight_decay, clipnorm=1.0)
        trainable = {id(variable): variable for variable in self.twin.model.trainable_variables}
        self.trainable = list(trainable.values())
        kernels = {id(self.twin.variables[f"{name}.kernel"]) for name in layers}
        spared = [variable for variable in self.trainable if id(variable) not in kernels]
        # By the variable and not by its name, of which the optimizer would take any part for a match.
        self.optimizer._exclude_from_weight_decay = [self.optimizer._var_key(variable) for variable in spared]
        self.optimizer.build(self.trainable)
        everything = [*self.twin.variables.values(), *self.twin.model.variables]
        self.model_variables = list({id(variable): variable for variable in everything}.values())
        self.kept = [*self.model_variables, *self.optimizer.variables]
        self._traced = tf.function(self._step)
        self._evaluated = tf.function(self._evaluate)

    def steps(self, first: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Every step from the first, with the indices of its images; an epoch's order follows from its number."""
        epoch, batches = -1, []
        for step in range(first, self.total):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                batches = order(len(self.images), self.batch, self.options.seed, epoch)
            yield step, batches[step % self.steps_per_epoch]

    def step(self, indices: NDArray[np.int64], number: int) -> float:
        """One step; gives the loss before it."""
        labels = tf.one_hot(self.images.labels[indices], self.checkpoint.config.num_classes)
        pixels, targets = self.augment(self.images.read(indices.tolist()), labels, number)
        scale, offset = self.checkpoint.preprocess.scale_and_offset()
        return float(self._traced(pixels * scale + offset, targets))

    def _step(self, images: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            if self.both is None:
                loss = tf.reduce_mean(self._losses(images, targets, self.twin.model(images, training=True)))
            else:
                (logits, *tokens), (_, *taught) = (model(images) for model in self.both)
                loss = tf.reduce_mean(self._losses(images, targets, logits))
                loss += self.options.distill_tokens * distance(tokens, taught)
        gradients = tape.gradient(loss, self.trainable)
        self.optimizer.apply_gradients(
            [
                (gradient, variable)
                for gradient, variable in zip(gradients, self.trainable, strict=True)
                if gradient is not None
            ]
        )
        return loss

    def _losses(self, images: Any, targets: Any, logits: Any) -> Any:
        """The loss of each image: the distance from its class and from the uncompressed model's answer."""
        options = self.options
        losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits) * (1 - options.distill)
        if self.teacher is None:
            return losses
        taught = tf.nn.softmax(self.teacher(images, training=False) / options.temperature)
        soft = tf.nn.softmax_cross_entropy_with_logits(taught, logits / options.temperature)
        return losses + soft * options.distill * options.temperature**2

    def _evaluate(self, images: Any, targets: Any) -> tuple[Any, Any]:
        logits = self.twin.model(images, training=False)
        return tf.argmax(logits, axis=-1), tf.reduce_sum(self._losses(images, targets, logits))

    def record(self, epoch: int, loss: float | None, steps: int) -> dict[str, Any]:
        """What an epoch gave, after so many steps."""
        top1, held_out_loss = self.evaluate()
        settled = self.method.is_settled(steps)
        return {"epoch": epoch, "loss": loss, "top1": top1, "held_out_loss": held_out_loss, "settled": settled}

    def evaluate(self) -> tuple[float, float]:
        """Fraction of the held-out images that are right, and their mean loss, as in training."""
        right, loss, count = 0, 0.0, len(self.held_out)
        for start in range(0, count, JUDGED):
            indices = list(range(start, min(start + JUDGED, count)))
            images = self.checkpoint.preprocess.normalize(self.held_out.read(indices))
            labels = self.held_out.labels[indices]
            first, losses = self._evaluated(images, tf.one_hot(labels, self.checkpoint.config.num_classes))
            right += int((first.numpy() == labels).sum())
            loss += float(losses)
        return right / count, loss / count


def _with_tokens(twin: Twin, blocks: Sequence[int]) -> Any:
    """A model that gives the tokens behind some blocks too."""
    tokens = [twin.stream[block + 1] for block in blocks]
    return tf_keras.Model(twin.model.inputs, [twin.model.output, *tokens])


def distance(tokens: Sequence[Any], taught: Sequence[Any]) -> Any:
    """How far tokens are from those of another model, squared and as a share of what varies in those: mean of all."""
    shares = []
    for own, other in zip(tokens, taught, strict=True):
        count = min(own.shape[1], other.shape[1])  # the last block gives no more than are read
        right = other[:, :count]
        varying = right - tf.reduce_mean(right, axis=(0, 1), keepdims=True)
        shares.append(tf.reduce_sum(tf.square(own[:, :count] - right)) / (tf.reduce_sum(tf.square(varying)) + EPSILON))
    return tf.add_n(shares) / len(shares)


def _values(variables: Sequence[Any]) -> list[NDArray[Any]]:
    return [variable.numpy() for variable in variables]


def _assign(variables: Sequence[Any], values: Sequence[NDArray[Any]]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
