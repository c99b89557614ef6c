"""Tokenizers in the files of Hugging Face's `tokenizers`, and CLIP's byte pairs."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from vit_deploy.core.engine_errors import explained
from vit_deploy.errors import CheckpointError

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # what CLIP's byte pairs are merged within
WORD_END = "</w>"
SAFE_BYTES = (range(ord("!"), ord("~") + 1), range(ord("¡"), ord("¬") + 1), range(ord("®"), ord("ÿ") + 1))
GET_AGAIN = "get the tokenizer's files again"
MERGES_OF_CLIP = 49152 - 256 - 2  # of the lines in OpenAI's file


class Vocabulary:
    """A tokenizer of byte pairs, pieces or words, with the special tokens that its file puts around a text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.no_truncation()

    @classmethod
    def from_json(cls, path: Path, *, lowers: bool = False) -> Vocabulary:
        """The tokenizer in a `tokenizer.json`.

        Args:
            path: that file.
            lowers: whether texts are put in lower case before all that the file says, as SigLIP 2's class does.

        Raises:
            CheckpointError: the file is missing, or no text.
        EngineError: it is damaged.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _damaged(path, error) from error
        with _explained(path):
            tokenizer = Tokenizer.from_str(text)
        if lowers:
            said = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
            tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *said])
        return cls(tokenizer)

    @classmethod
    def from_merges(cls, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], path: Path) -> Vocabulary:
        """CLIP's tokenizer, whose byte pairs are those of its `vocab.json` and `merges.txt`.

        Args:
            vocabulary: the number of each token.
            merges: pairs, in the order in which they are merged.
            path: of the vocabulary, for messages.

        Raises:
            CheckpointError: no start or end of a text among the tokens.
            EngineError: pairs that are none of them.
        """
        if absent := [token for token in (START, END) if token not in vocabulary]:
            raise CheckpointError(
                f"{path} has no {' and no '.join(absent)}", fix="give the files of a CLIP's tokenizer"
            )
        with _explained(path):
            model = models.BPE(
                vocab=dict(vocabulary),
                merges=list(merges),
                continuing_subword_prefix="",
                end_of_word_suffix=WORD_END,
                unk_token=END,
            )
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        inside = Regex(rf"{_escaped(START)}|{_escaped(END)}|{WORDS}")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(inside, behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        tokenizer.add_special_tokens([START, END])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}",
            special_tokens=[(token, vocabulary[token]) for token in (START, END)],
        )
        return cls(tokenizer)

    @classmethod
    def from_openai(cls, path: Path) -> Vocabulary:
        """CLIP's tokenizer, from the list of merges that OpenAI publishes, `bpe_simple_vocab_16e6.txt.gz`.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        try:
            held = path.read_bytes()
            text = (gzip.decompress(held) if path.suffix == ".gz" else held).decode("utf-8")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise _damaged(path, error) from error
        pairs = [tuple(line.split()) for line in text.split("\n")[1 : MERGES_OF_CLIP + 1]]
        merges = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
        if len(merges) != MERGES_OF_CLIP:
            raise CheckpointError(
                f"{path} lists {len(merges)} merges; expected {MERGES_OF_CLIP}", fix="give OpenAI's own file"
            )
        letters = _letters()
        tokens = [*letters, *(letter + WORD_END for letter in letters), *map("".join, merges), START, END]
        return cls.from_merges({token: number for number, token in enumerate(tokens)}, merges, path)

    def encode(self, text: str, length: int) -> tuple[list[int], bool]:
        """Numbers of the tokens of a text, at most so many, and whether there were more."""
        self._tokenizer.no_truncation()
        numbers = self._tokenizer.encode(text).ids
        if len(numbers) <= length:
            return list(numbers), False
        self._tokenizer.enable_truncation(max_length=length)
        return list(self._tokenizer.encode(text).ids), True

    def number_of(self, token: str) -> int | None:
        """The number of a token; None where there is none."""
        number: int | None = self._tokenizer.token_to_id(token)
        return number


def _letters() -> list[str]:
    """A letter for each byte, in the order of CLIP's vocabulary: those that can be seen, then the others."""
    safe = [byte for run in SAFE_BYTES for byte in run]
    others = [byte for byte in range(256) if byte not in safe]
    return [*map(chr, safe), *(chr(256 + place) for place in range(len(others)))]


def _escaped(token: str) -> str:
    return token.replace("|", r"\|")


def _explained(path: Path) -> explained:
    # The library raises `Exception` itself for whatever it cannot read.
    return explained(f"tokenizers cannot read {path}", Exception, fix=GET_AGAIN)


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} is no tokenizer that can be read: {error}", fix=GET_AGAIN)
