"""SigLIP's tokenizer: a file of SentencePiece, and what its authors do to texts first."""

from __future__ import annotations

import re
import string
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from vit_deploy.errors import CheckpointError

SPACE = "▁"
UNKNOWN = "<unk>"  # put in front of a text so that its first space is kept, and taken away again
PUNCTUATION = str.maketrans("", "", string.punctuation)


class Pieces:
    """A model of SentencePiece, with an end of text behind each.

    Args:
        path: the file, usually `spiece.model`.
        end: the token behind a text.
        lowers: whether texts are put in lower case.

    Raises:
        CheckpointError: the file is missing or damaged, or has no such token.
    """

    def __init__(self, path: Path, end: str = "</s>", *, lowers: bool = True) -> None:
        self._pieces = SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(path.read_bytes())
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} is no tokenizer that can be read: {error}", fix="get the tokenizer's files again"
            ) from error
        found = self.number_of(end)
        if found is None:
            raise CheckpointError(
                f"{path} has no token {end}", fix="give the tokenizer that the model was trained with"
            )
        self._end, self._lowers = found, lowers
        self._front = len(self._pieces.encode(UNKNOWN))

    def encode(self, text: str, length: int) -> tuple[list[int], bool]:
        """Numbers of the tokens of a text, at most so many, and whether there were more."""
        canonical = (SPACE + text.replace(SPACE, " ")).translate(PUNCTUATION)
        canonical = re.sub(r"\s+", " ", canonical.lower() if self._lowers else canonical).strip()
        numbers = list(self._pieces.encode(UNKNOWN + canonical))[self._front :]
        return [*numbers[: length - 1], self._end], len(numbers) >= length

    def number_of(self, token: str) -> int | None:
        """The number of a token; None where there is none."""
        number = int(self._pieces.piece_to_id(token))
        return number if self._pieces.id_to_piece(number) == token else None
