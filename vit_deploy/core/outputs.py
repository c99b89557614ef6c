"""Outputs of a ViT by name: which there are, the shape of each, and the model that computes no more than those."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from vit_deploy.core.choices import Pooling
from vit_deploy.core.config import LATER, ViTConfig
from vit_deploy.core.config_checks import OF_A_MAP
from vit_deploy.core.older_python import StrEnum
from vit_deploy.errors import ConfigError, closest

LOGITS, PROBABILITIES, FEATURES, NORMED, ATTENTION = "logits", "probabilities", "features", "normed", "attention"


class Kind(StrEnum):
    """The form of an output's numbers, which says how they are compared."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    VECTOR = "vector"
    TOKENS = "tokens"
    MAP = "map"
    ATTENTION = "attention"


class Part(StrEnum):
    """Tokens of a sequence; a map is the patches in their rows and columns."""

    TOKENS = "tokens"
    CLASS = "class_token"
    DISTILLATION = "distillation_token"
    REGISTERS = "register_tokens"
    PATCHES = "patch_tokens"
    MAP = "map"


MOST_COMPARED = 2000  # names that one that is not there is compared with
BLOCK = re.compile(r"block_(0|[1-9]\d{0,8})(?:\.(attention)|(\.normed)?(?:\.(\w+))?)")


@dataclass(frozen=True)
class Output:
    """One output of a ViT.

    Args:
        name: what the file calls it.
        kind: the form of its numbers.
        part: which tokens it holds; None for what is no token.
        block: the index of the block that it is taken behind, or whose attention it is; None behind the last norm.
        normed: whether a block's tokens go through the last norm.
    """

    name: str
    kind: Kind
    part: Part | None = None
    block: int | None = None
    normed: bool = False

    def shape(self, config: ViTConfig) -> tuple[int, ...]:
        """The shape for one image."""
        match self.kind:
            case Kind.LOGITS | Kind.PROBABILITIES:
                return (config.num_classes,)
            case Kind.ATTENTION:
                return (config.num_heads, config.sequence_length, config.sequence_length)
            case Kind.MAP:
                return (*config.grid, config.embed_dim)
        if self.name == FEATURES:
            return headless(config).output_shape
        if self.kind is Kind.VECTOR:
            return (config.embed_dim,)
        start, stop = self.rows(config)
        return (stop - start, config.embed_dim)

    @property
    def depth(self) -> tuple[float, ...]:
        """How much of a model is in front of it, to be compared with others."""
        if self.kind is Kind.ATTENTION:
            return (-1.0 if self.block is None else self.block - 0.5,)
        if self.block is not None:
            return (self.block, self.normed)
        behind = (FEATURES, PROBABILITIES, LOGITS)
        return (math.inf, behind.index(self.name) if self.name in behind else -1)

    def rows(self, config: ViTConfig) -> tuple[int, int]:
        """The first of its tokens in the sequence, and the one behind the last."""
        prefix, registers = config.num_prefix_tokens, config.register_tokens
        match self.part:
            case Part.CLASS:
                return 0, 1
            case Part.DISTILLATION:
                return 1, 2
            case Part.REGISTERS:
                return prefix - registers, prefix
            case Part.PATCHES | Part.MAP:
                return prefix, config.sequence_length
        return 0, config.sequence_length

    def tokens_read(self, config: ViTConfig) -> int:
        """How many of the last block's tokens, from the first on, it depends on."""
        if self.kind is Kind.ATTENTION:
            return config.sequence_length if self.block == config.num_layers - 1 else 0
        if self.block is not None and self.block < config.num_layers - 1:
            return 0
        return config.num_tokens_read if self.part is None else self.rows(config)[1]


def headless(config: ViTConfig) -> ViTConfig:
    """The config without its head, which gives what the head reads."""
    if not config.include_top:
        return config
    return config.replace(include_top=False, num_classes=0, pooling=config.effective_pooling, head_norm=False)


def possible_outputs(config: ViTConfig) -> tuple[Output, ...]:
    """Every output that a ViT of this config has, those behind the last block first."""
    return tuple(_possible(config))


def _possible(config: ViTConfig) -> Iterator[Output]:
    yield from _behind(config)
    for block in range(config.num_layers):
        yield from _of_block(block, config)


def _behind(config: ViTConfig) -> Iterator[Output]:
    if config.include_top:
        yield Output(LOGITS, Kind.LOGITS)
        yield Output(PROBABILITIES, Kind.PROBABILITIES)
    if headless(config).pooling is None:
        yield Output(FEATURES, Kind.TOKENS, Part.TOKENS)
    else:
        yield Output(FEATURES, Kind.VECTOR)
    yield from (Output(str(part), kind, part) for part, kind in _parts(config))


def _of_block(block: int, config: ViTConfig) -> Iterator[Output]:
    name = f"block_{block}"
    ends = [(name, False)]
    if config.last_norm and not config.norm_after_pooling:
        ends.append((f"{name}.{NORMED}", True))
    parts = list(_parts(config))[1:]
    for end, normed in ends:
        yield Output(end, Kind.TOKENS, Part.TOKENS, block, normed)
        yield from (Output(f"{end}.{part}", kind, part, block, normed) for part, kind in parts)
    yield Output(f"{name}.{ATTENTION}", Kind.ATTENTION, None, block)


def _parts(config: ViTConfig) -> Iterator[tuple[Part, Kind]]:
    yield Part.TOKENS, Kind.TOKENS
    if config.class_token:
        yield Part.CLASS, Kind.VECTOR
    if config.distillation_token:
        yield Part.DISTILLATION, Kind.VECTOR
    if config.register_tokens:
        yield Part.REGISTERS, Kind.TOKENS
    yield Part.PATCHES, Kind.TOKENS
    yield Part.MAP, Kind.MAP


def outputs_of_model(names: Iterable[str], config: ViTConfig) -> tuple[Output, ...]:
    """The outputs with these names, in this order.

    Raises:
        ConfigError: names that this model does not have, names twice, or two names for the same numbers; all of them
            are named.
    """
    wanted = list(names)
    blocks = {int(block[1]) for name in wanted if (block := BLOCK.fullmatch(name))}
    # Of the blocks that are named alone: a config from a file may promise any number of them.
    named = (_of_block(block, config) for block in sorted(blocks) if block < config.num_layers)
    known = {output.name: output for output in chain(_behind(config), *named)}
    problems = [_no_output(name, config) for name in dict.fromkeys(wanted) if name not in known]
    if problems:
        names_there = [output.name for output in islice(_possible(config), MOST_COMPARED)]
        hints = [closest(name, names_there) for name in dict.fromkeys(wanted) if name not in known]
        raise ConfigError("; ".join(problems), fix="; ".join([*filter(None, hints)] or [f"choose {in_words(config)}"]))
    seen: dict[tuple[object, ...], str] = {}
    for name in wanted:
        content = _content(known[name], config)
        if seen.setdefault(content, name) != name:
            problems.append(f"{name} and {seen[content]} are the same numbers in this model")
        elif wanted.count(name) > 1:
            problems.append(f"{name} is named {wanted.count(name)} times")
    if problems:
        raise ConfigError("; ".join(dict.fromkeys(problems)), fix="name each output once")
    found = tuple(known[name] for name in wanted)
    _check_end_is_read(found, config)
    return found


def in_words(config: ViTConfig) -> str:
    """The names that `possible_outputs` gives, those of all blocks together."""
    behind = [output.name for output in _behind(config)]
    of_one = [output.name.partition(".")[2] for output in _of_block(0, config)]
    blocks = "block_0" if config.num_layers == 1 else f"block_0 to block_{config.num_layers - 1}"
    return f"{', '.join(behind)}, or {blocks} alone or with .{', .'.join(filter(None, of_one))}"


def _no_output(name: str, config: ViTConfig) -> str:
    block = BLOCK.fullmatch(name)
    if block and int(block[1]) >= config.num_layers:
        return f"there is no output {name!r}: the blocks are block_0 to block_{config.num_layers - 1}"
    if block and block[3] and not config.last_norm:
        return f"there is no output {name!r}: the model has no last norm"
    if block and block[3] and config.norm_after_pooling:
        return f"there is no output {name!r}: the model's last norm is that of the pooled vector, not of tokens"
    if name in (LOGITS, PROBABILITIES):
        return f"there is no output {name!r}: the model has no head"
    last = name.rpartition(".")[2]
    if last in ("class_token", "distillation_token", "register_tokens"):
        return f"there is no output {name!r}: the model has no {last.replace('_', ' ')}"
    return f"there is no output {name!r}"


def _content(output: Output, config: ViTConfig) -> tuple[object, ...]:
    """What tells the numbers of two outputs apart."""
    if output.kind in (Kind.LOGITS, Kind.PROBABILITIES, Kind.ATTENTION):
        return (output.name,)
    block, normed = output.block, output.normed
    if block == config.num_layers - 1 and (normed or not config.last_norm or config.norm_after_pooling):
        block, normed = None, False
    rows = output.rows(config)
    if output.name == FEATURES and output.part is None:
        chosen = not config.pre_logits_dim and not config.norm_after_pooling
        if config.effective_pooling is not Pooling.CLS or not chosen:
            return (FEATURES,)
        rows = (0, 1)
    return (block, normed, rows, output.kind is Kind.MAP)


def _check_end_is_read(outputs: Sequence[Output], config: ViTConfig) -> None:
    """Refuse an attention that nothing is read behind: the rest of its block would be weights that nothing reads."""
    last = max((config.num_layers if one.block is None else one.block for one in outputs), default=config.num_layers)
    if all(output.kind is Kind.ATTENTION for output in outputs if output.block == last) and last < config.num_layers:
        behind = "class_token" if config.class_token else f"block_{last}"
        raise ConfigError(
            f"of block_{last}, and of what comes behind it, block_{last}.{ATTENTION} alone would be read",
            fix=f"add --output {behind}",
        )


def reduced_config(config: ViTConfig, outputs: Sequence[Output]) -> ViTConfig:
    """The config of the model that computes these outputs and nothing that only others need.

    It keeps its head only for logits and probabilities, its pooling only for these and features, and no blocks behind
    the last that is read.
    """
    names = {output.name for output in outputs}
    if not names or names & {LOGITS, PROBABILITIES}:
        return config
    config = headless(config)
    if FEATURES in names:
        return config
    changes: dict[str, object] = {"pooling": None, "pre_logits_dim": 0, "pre_logits_linear": False}
    changes |= {name: LATER[name] for name in OF_A_MAP}
    if config.norm_after_pooling:
        changes |= {"norm_after_pooling": False, "last_norm": False}
    behind = [output for output in outputs if output.block is None]
    if not behind:
        changes["num_layers"] = 1 + max(output.block or 0 for output in outputs)
        if not any(output.normed for output in outputs):
            changes["last_norm"] = False
    elif {output.part for output in behind} == {Part.CLASS}:
        changes["pooling"] = Pooling.CLS  # of which the last block then computes no more
    return config.replace(**changes)


def tokens_read(config: ViTConfig, outputs: Sequence[Output]) -> int:
    """How many of the last block's tokens, from the first on, these outputs depend on; the config's own without any."""
    return max((output.tokens_read(config) for output in outputs), default=config.num_tokens_read)
