"""Repair of texts whose encoding was mistaken, which also straightens quotes and takes ligatures apart."""

from __future__ import annotations

import ftfy


def repaired(text: str) -> str:
    """The text as OpenAI's tokenizer of CLIP repairs it."""
    return str(ftfy.fix_text(text))
