"""Tiny models of images and texts as their own programs save them, with tokenizers that are trained here."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE = 24  # pixels of a side
CONTEXT = 40
MERGES = "bpe_simple_vocab_16e6.txt.gz"
VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": IMAGE,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 36,
    "intermediate_size": 52,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": CONTEXT,
}
CORPUS = [
    "a photo of a cat", "This is a photo of the Dog, a bird and a plane.", "it's two cats & 3 dogs", "ünïcode и кошка",
    "猫 と 犬", "🙂 emoji 🙂", "a good large drawing of the fox",
] * 12  # fmt: skip
LABELS = (
    "cat",
    "Dog!",
    "it's 3 CATS & dogs",
    "🙂 emoji",
    "猫 ünïcode",
    "кошка",
    "The Quick, brown — “fox”",
    "snake_case (bird)",
)
LONG = "a very long name of a bird and of a plane, " * 12

Answer = Callable[[NDArray[np.float32], Sequence[str]], NDArray[np.float64]]


@dataclass(frozen=True)
class Saved:
    """A model that its own program has saved.

    Args:
        folder: its folder, or file.
        logits: what the program answers to images `(batch, height, width, channels)` and texts.
        sigmoid: whether it judges each text by itself.
        stated: what has to be said to read it.
        program: OpenCLIP's own model and tokenizer; None of another's.
    """

    folder: Path
    logits: Answer
    sigmoid: bool
    stated: dict[str, Any]
    program: tuple[Any, Any] | None = None

    def answer_to(self, images: NDArray[np.float32], classifier: NDArray[np.float64]) -> NDArray[np.float64]:
        """OpenCLIP's logits of images `(batch, height, width, channels)` for a classifier `(dim, classes)`."""
        import torch

        assert self.program is not None
        model, _ = self.program
        with torch.no_grad():
            seen = model.encode_image(torch.from_numpy(images.transpose(0, 3, 1, 2)), normalize=True).double().numpy()
            answer: NDArray[np.float64] = float(model.logit_scale.detach().exp()) * seen @ classifier
        return answer if model.logit_bias is None else answer + float(model.logit_bias.detach())


def drawn(model: Any, seed: int = 0) -> Any:
    """The model with weights of which none is left as it begins."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith(("logit_scale", "logit_bias")):
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise * 0.2 if parameter.ndim > 1 else parameter.data + noise * 0.1
    return model.eval()


def byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a CLIP's tokenizer."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    end = "</w>"
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=end))
    tokenizer.normalizer = normalizers.Lowercase()
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=660, initial_alphabet=letters, end_of_word_suffix=end, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = {str(token): int(number) for token, number in model["vocab"].items()}
    for token in (*(letter + end for letter in letters), "<|startoftext|>", "<|endoftext|>"):
        vocabulary.setdefault(token, len(vocabulary))
    return vocabulary, [(str(first), str(second)) for first, second in model["merges"]]


def pieces(folder: Path) -> Path:
    """A file of SentencePiece, as SigLIP's, whose end of text is of number 1."""
    import sentencepiece

    words = " ".join(CORPUS).lower().replace(",", "").replace(".", "").replace("'", "").split()
    rng = random.Random(0)
    sentences = [" ".join(rng.choices(words, k=8)) for _ in range(300)]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=written,
        vocab_size=90,
        model_type="unigram",
        hard_vocab_limit=False,
        pad_id=-1,
        bos_id=-1,
        eos_id=1,
        unk_id=2,
        control_symbols=["<extra>"],
        minloglevel=2,
    )
    path = folder / "spiece.model"
    path.write_bytes(written.getvalue())
    return path


def gemma(folder: Path, kind: str) -> int:
    """The files of a tokenizer as Gemma's, and how many tokens it has."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {
        **{"tokenizer_class": kind, "add_bos_token": False, "add_eos_token": True, "model_max_length": CONTEXT},
        **{"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"},
        **{"padding_side": "right", "model_input_names": ["input_ids"]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return int(tokenizer.get_vocab_size())


def clip(folder: Path, *, legacy: bool = False, files: str = "tokenizer.json") -> Saved:
    """transformers' CLIP; with the early config's end of text, and with the early files of its tokenizer."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    vocabulary, merges = byte_pairs()
    end = vocabulary["<|endoftext|>"]
    text = {**TEXT, "vocab_size": len(vocabulary), "eos_token_id": 2 if legacy else end, "bos_token_id": end - 1}
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=20)
    model = drawn(CLIPModel(config))
    model.save_pretrained(folder)
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)
    if files == "tokenizer.json":
        tokenizer.save_pretrained(folder)
    else:
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    _processor(folder, "CLIPImageProcessor")
    return Saved(folder, _of_transformers(model, tokenizer, "longest"), False, {})


def metaclip_2(folder: Path) -> Saved:
    """transformers' MetaCLIP 2, with a tokenizer as XLM-RoBERTa's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import MetaClip2Config, MetaClip2Model, XLMRobertaTokenizer

    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(CORPUS, trainer)
    vocabulary = [(str(token), float(score)) for token, score in json.loads(trained.to_str())["model"]["vocab"]]
    tokenizer = XLMRobertaTokenizer(vocab=vocabulary, model_max_length=CONTEXT)
    text = {**TEXT, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": 0}
    model = drawn(MetaClip2Model(MetaClip2Config(text_config=text, vision_config=VISION, projection_dim=20)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _processor(folder, "CLIPImageProcessor")
    return Saved(folder, _of_transformers(model, tokenizer, "longest"), False, {})


def siglip(folder: Path, *, masked: bool = False) -> Saved:
    """transformers' SigLIP, as it was trained, or with a tokenizer that hides what fills a row."""
    from transformers import AutoTokenizer, SiglipTokenizer

    path = pieces(folder)
    names = {} if masked else {"model_input_names": ["input_ids"]}
    SiglipTokenizer(str(path), model_max_length=CONTEXT, **names).save_pretrained(folder)
    model = _siglip(folder, 128)
    return Saved(folder, _of_transformers(model, AutoTokenizer.from_pretrained(folder), "max_length"), True, {})


def siglip_2(folder: Path, kind: str) -> Saved:
    """transformers' SigLIP 2 of a fixed size, with either of the classes that its tokenizer has had."""
    from transformers import AutoTokenizer

    model = _siglip(folder, gemma(folder, kind))
    return Saved(folder, _of_transformers(model, AutoTokenizer.from_pretrained(folder), "max_length"), True, {})


def siglip_2_of_any_size(folder: Path, kind: str) -> Saved:
    """transformers' SigLIP 2 whose images have any size (NaFlex), at that of its position table."""
    from transformers import AutoTokenizer, Siglip2Config, Siglip2Model

    rows = gemma(folder, kind)
    text = {**TEXT, "vocab_size": rows, "projection_size": VISION["hidden_size"], "eos_token_id": 1, "bos_token_id": 1}
    text["max_position_embeddings"] = 64
    side = VISION["patch_size"]
    vision = {name: value for name, value in VISION.items() if name != "image_size"}
    vision["num_patches"] = (IMAGE // side) ** 2
    model = drawn(Siglip2Model(Siglip2Config(text_config=text, vision_config=vision)))
    model.logit_scale.data.fill_(1.7)
    model.logit_bias.data.fill_(-1.2)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return Saved(folder, _of_any_size(model, tokenizer, side), True, {})


def _of_any_size(model: Any, tokenizer: Any, side: int) -> Answer:
    """Answers to images as rows of patches, each a row of pixels, of which none is filled up."""
    import torch

    length = model.config.text_config.max_position_embeddings

    def logits(images: NDArray[np.float32], texts: Sequence[str]) -> NDArray[np.float64]:
        read = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        count, height, width, channels = images.shape
        grid = height // side, width // side
        cut = images.reshape(count, grid[0], side, grid[1], side, channels).transpose(0, 1, 3, 2, 4, 5)
        patches = torch.from_numpy(np.ascontiguousarray(cut.reshape(count, grid[0] * grid[1], -1)))
        shown = {
            "pixel_values": patches,
            "pixel_attention_mask": torch.ones(patches.shape[:2], dtype=torch.int64),
            "spatial_shapes": torch.tensor([grid] * count),
        }
        with torch.no_grad():
            return np.asarray(model(**shown, **read).logits_per_image.double().numpy())

    return logits


def _siglip(folder: Path, rows: int) -> Any:
    from transformers import SiglipConfig, SiglipModel

    text = {**TEXT, "vocab_size": rows, "projection_size": VISION["hidden_size"], "eos_token_id": 1, "bos_token_id": 1}
    text["max_position_embeddings"] = 64  # to which the pipeline fills rows, whatever the config says
    model = drawn(SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)))
    model.logit_scale.data.fill_(1.7)
    model.logit_bias.data.fill_(-1.2)
    model.save_pretrained(folder)
    _processor(folder, "SiglipImageProcessor")
    return model


def open_clip(folder: Path, **blocks: Any) -> Saved:
    """OpenCLIP's own towers, the texts' beside that of images, as in OpenAI's files.

    Args:
        folder: for the files.
        **blocks: options of the blocks of both.
    """
    import open_clip as program

    shutil.copy(Path(program.__file__).with_name(MERGES), folder)
    vision = {"image_size": IMAGE, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8}
    text = {**_TEXT, "vocab_size": 49408, **blocks}
    towers = {"vision_cfg": {**vision, **blocks}, "text_cfg": text}
    return _open_clip(folder, {"embed_dim": 20, "quick_gelu": True, **towers}, None)


def open_clip_siglip(folder: Path) -> Saved:
    """A tower of timm's, and texts under a path of their own, as OpenCLIP's SigLIP 2."""
    vision = {
        **{"image_size": 160, "timm_model_name": "test_vit", "timm_model_pretrained": False},
        **{"timm_pool": "token", "timm_proj": "none"},
    }
    text = {
        **{**_TEXT, "vocab_size": gemma(folder, "GemmaTokenizer"), "hf_tokenizer_name": "a name"},
        **{"tokenizer_kwargs": {"clean": "canonicalize"}, "no_causal_mask": True, "proj_bias": True},
        **{"pool_type": "last", "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"}},
    }
    model = {"embed_dim": 64, "init_logit_bias": -1.5, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
    return _open_clip(folder, model, "canonicalize")


_TEXT = {"context_length": CONTEXT, "width": 36, "heads": 3, "layers": 2}


def _open_clip(folder: Path, model_cfg: dict[str, Any], clean: str | None) -> Saved:
    import torch
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
    from safetensors.torch import save_file

    arguments = {name: value for name, value in model_cfg.items() if name != "custom_text"}
    model = drawn((CustomTextCLIP if model_cfg.get("custom_text") else CLIP)(**arguments))
    model.logit_scale.data.fill_(1.7)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if "attn_mask" not in name}
    save_file(state, folder / "open_clip_model.safetensors")
    said = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": said}))
    tokenizer = (
        SimpleTokenizer(str(folder / MERGES), context_length=CONTEXT)
        if clean is None
        else HFTokenizer(str(folder), context_length=CONTEXT, clean=clean)
    )

    def logits(images: NDArray[np.float32], texts: Sequence[str]) -> NDArray[np.float64]:
        with torch.no_grad():
            pixels = torch.from_numpy(images.transpose(0, 3, 1, 2))
            seen, read = model.encode_image(pixels, normalize=True), model.encode_text(tokenizer(texts), normalize=True)
            answer = model.logit_scale.exp() * seen @ read.T
            answer = answer if model.logit_bias is None else answer + model.logit_bias
        return answer.double().numpy()

    return Saved(folder, logits, model.logit_bias is not None, {}, (model, tokenizer))


def _processor(folder: Path, kind: str) -> None:
    side = {"height": IMAGE, "width": IMAGE}
    said = {
        **{"image_processor_type": kind, "do_resize": True, "size": side, "resample": 3, "do_rescale": True},
        **{"rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        **({"do_center_crop": False} if kind.startswith("CLIP") else {}),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(said))


def _of_transformers(model: Any, tokenizer: Any, padding: str) -> Answer:
    import torch

    length = model.config.text_config.max_position_embeddings

    def logits(images: NDArray[np.float32], texts: Sequence[str]) -> NDArray[np.float64]:
        read = tokenizer(list(texts), padding=padding, truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            answer = model(pixel_values=torch.from_numpy(images.transpose(0, 3, 1, 2)), **read).logits_per_image
        return np.asarray(answer.double().numpy())

    return logits
