"""Texts as rows of token numbers, each of the same length."""

from __future__ import annotations

import html
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vit_deploy.text import CLEANERS

PUNCTUATION = str.maketrans("", "", string.punctuation)


class Encoder(Protocol):
    """What a file of a tokenizer does."""

    def encode(self, text: str, length: int) -> tuple[list[int], bool]:
        """Numbers of the tokens of a text, at most so many, and whether there were more."""

    def number_of(self, token: str) -> int | None:
        """The number of a token; None where there is none."""


@dataclass(frozen=True)
class Tokenizer:
    """How a model's texts become tokens.

    Args:
        encoder: the tokenizer's own file.
        clean: what is done to a text before.
        pad: the number of the token that fills a row.
        pads_left: whether it stands in front of the text.
        masks: whether attention leaves filled places out.
        dropped: the number of a token that becomes zero wherever it stands, or None.
    """

    encoder: Encoder
    clean: Callable[[str], str] = str
    pad: int = 0
    pads_left: bool = False
    masks: bool = False
    dropped: int | None = None


@dataclass(frozen=True)
class Tokens:
    """Texts in tokens.

    Args:
        numbers: `(texts, length)`.
        seen: `(texts, length)`, what attention sees; None for all of it.
        cut: places of the texts that had more tokens than fit.
    """

    numbers: NDArray[np.int64]
    seen: NDArray[np.bool_] | None
    cut: tuple[int, ...]


def tokenized(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> Tokens:
    """The texts in tokens; what does not fit is cut off, before the end of the text.

    Args:
        tokenizer: the model's.
        texts: any.
        length: tokens of a row.
    """
    numbers = np.full((len(texts), length), tokenizer.pad, np.int64)
    seen = np.zeros((len(texts), length), np.bool_)
    cut = []
    for row, text in enumerate(texts):
        found, more = tokenizer.encoder.encode(tokenizer.clean(text), length)
        place = slice(length - len(found), None) if tokenizer.pads_left else slice(len(found))
        numbers[row, place], seen[row, place] = found, True
        if more:
            cut.append(row)
    if tokenizer.dropped is not None:
        numbers[numbers == tokenizer.dropped] = 0
    return Tokens(numbers, seen if tokenizer.masks else None, tuple(cut))


def lowered(text: str) -> str:
    """As OpenAI's and OpenCLIP's tokenizers of byte pairs do."""
    return spaced(text).lower()


def spaced(text: str) -> str:
    """Repaired, with single spaces, as OpenCLIP does for tokenizers of others.

    Raises:
        MissingEngineError: the library that repairs it is not installed, and it is no plain ASCII.
    """
    repaired: Any = str if text.isascii() else CLEANERS.load("ftfy")
    return " ".join(html.unescape(html.unescape(repaired(text))).split())


def canonical(text: str) -> str:
    """Without punctuation, in lower case, as OpenCLIP does for SigLIP."""
    repaired = spaced(text).replace("_", " ").translate(PUNCTUATION).lower()
    return " ".join(repaired.split())
