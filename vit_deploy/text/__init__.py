"""Classifiers from words: tokenizers, text towers in NumPy, prompts, and the head that embeddings of texts are."""

from __future__ import annotations

from vit_deploy.core.registry import Plugin, Registry

TOKENIZERS = Registry(
    "tokenizer",
    {
        "tokenizers": Plugin("vit_deploy.text.byte_pairs:Vocabulary", extra="text", needs=("tokenizers",)),
        "sentencepiece": Plugin("vit_deploy.text.sentence_pieces:Pieces", extra="text", needs=("sentencepiece",)),
    },
)
"""The libraries that files of tokenizers are read with."""

CLEANERS = Registry(
    "text cleaner", {"ftfy": Plugin("vit_deploy.text.repaired:repaired", extra="text", needs=("ftfy",))}
)
"""What OpenAI's and OpenCLIP's own tokenizer does to texts before anything else."""
