"""The files of a tokenizer beside a model's weights, or in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.checkpoints.documents import MAX_JSON_BYTES, parse_json
from vit_deploy.errors import CheckpointError
from vit_deploy.text import TOKENIZERS
from vit_deploy.text.tokens import Encoder, Tokenizer

JSON, CONFIG, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
PIECES = "spiece.model"
OPENAI = ("bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt")
OF_SIGLIP, OF_SIGLIP2 = "SiglipTokenizer", "Siglip2Tokenizer"
BOTH = ("input_ids", "attention_mask")
FIX = f"say where it is, --tokenizer FOLDER, with {JSON}, {VOCABULARY} and {MERGES}, {PIECES}, or OpenAI's {OPENAI[0]}"


@dataclass(frozen=True)
class Usual:
    """What a program's tokenizer is where its files do not say it.

    Args:
        name: the class that transformers has for it.
        pad: the token that fills a row; empty where it is that of number zero, whatever the files say.
        masks: whether attention leaves filled places out, where the files say that it can.
        needs_pad: whether what fills a row changes what comes out.
        clean: what is done to texts before.
        drops: whether the token between two texts is made zero.
        fixed: whether it is that class whatever its files name.
    """

    name: str
    pad: str
    masks: bool
    needs_pad: bool
    clean: Callable[[str], str] = str
    drops: bool = False
    fixed: bool = False


def read_tokenizer(place: Path, usual: Usual, rows: int) -> Tokenizer:
    """The tokenizer in a folder, or of one file.

    Args:
        place: the folder or the file.
        usual: what its files do not say.
        rows: of the table of tokens.

    Raises:
        CheckpointError: none is there, it is damaged, or another model's.
        EngineError: it cannot be read by its library.
        MissingEngineError: its library is not installed.
    """
    folder = place if place.is_dir() else place.parent
    config = {**_document(folder / SPECIAL), **_document(folder / CONFIG)}
    said = None if usual.fixed else config.get("tokenizer_class")
    name = str(said or usual.name).removesuffix("Fast")
    encoder = _encoder(place, name, config)
    pad = encoder.number_of(_token(config.get("pad_token")) or usual.pad) if usual.pad else 0
    if pad is None and usual.needs_pad:
        raise CheckpointError(
            f"the tokenizer in {place} has no token {_token(config.get('pad_token')) or usual.pad} to fill rows with",
            fix="give the tokenizer that the model was trained with",
        )
    between = encoder.number_of(_token(config.get("sep_token")) or "[SEP]") if usual.drops else None
    side = config.get("padding_side") or ("left" if name == OF_SIGLIP2 else "right")
    masks = usual.masks and "attention_mask" in (config.get("model_input_names") or BOTH)
    return Tokenizer(_Checked(encoder, rows, place), usual.clean, pad or 0, side == "left", masks, between)


@dataclass(frozen=True)
class _Checked:
    """An encoder whose numbers are rows of a table."""

    encoder: Encoder
    rows: int
    place: Path

    def encode(self, text: str, length: int) -> tuple[list[int], bool]:
        """As the encoder.

        Raises:
            CheckpointError: it gives a number that the table does not have.
        """
        numbers, cut = self.encoder.encode(text, length)
        if numbers and max(numbers) >= self.rows:
            raise CheckpointError(
                f"the tokenizer in {self.place} gives the token {max(numbers)}, and the model knows {self.rows}",
                fix="give the tokenizer that the model was trained with: --tokenizer FOLDER",
            )
        return numbers, cut

    def number_of(self, token: str) -> int | None:
        """As the encoder."""
        return self.encoder.number_of(token)


def _encoder(place: Path, name: str, config: Mapping[str, Any]) -> Encoder:
    if place.is_file():
        return _of_file(place, name, config)
    found = [file for file in (JSON, VOCABULARY, PIECES, *OPENAI) if (place / file).is_file()]
    if name == OF_SIGLIP and PIECES in found:
        found = [PIECES]
    if not found:
        raise CheckpointError(f"there is no tokenizer in {place}, and the names of classes have to be read", fix=FIX)
    return _of_file(place / found[0], name, config)


def _of_file(path: Path, name: str, config: Mapping[str, Any]) -> Encoder:
    encoder: Encoder
    if path.suffix == ".model":
        end = _token(config.get("eos_token")) or "</s>"
        encoder = TOKENIZERS.load("sentencepiece")(path, end, lowers=config.get("do_lower_case", True) is not False)
    elif path.name in (VOCABULARY, MERGES):
        vocabulary, merges = path.with_name(VOCABULARY), path.with_name(MERGES)
        numbers = {str(token): int(number) for token, number in _document(vocabulary, needed=True).items()}
        encoder = TOKENIZERS.load("tokenizers").from_merges(numbers, _merges(merges), vocabulary)
    elif path.suffix == ".json":
        encoder = TOKENIZERS.load("tokenizers").from_json(path, lowers=name == OF_SIGLIP2)
    elif path.suffix in (".txt", ".gz"):
        encoder = TOKENIZERS.load("tokenizers").from_openai(path)
    else:
        raise CheckpointError(f"{path} is no file of a tokenizer that is known", fix=FIX)
    return encoder


def _merges(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {path}, the merges of {VOCABULARY}: {error}", fix=FIX) from error
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    if wrong := next((pair for pair in pairs if len(pair) != 2), None):
        raise CheckpointError(f"{path} has the line {' '.join(wrong)!r}; expected a pair", fix="get the file again")
    return [(first, second) for first, second in pairs]


def _document(path: Path, *, needed: bool = False) -> dict[str, Any]:
    if not path.is_file():
        if needed:
            raise CheckpointError(f"there is no {path}", fix=FIX)
        return {}
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes", fix="get the file again")
        return parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", fix="check its permissions") from error


def _token(said: object) -> str:
    """A special token, as a text or with options; empty for none."""
    content = said.get("content") if isinstance(said, Mapping) else said
    return content if isinstance(content, str) else ""
