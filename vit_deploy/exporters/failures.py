"""Failures inside TensorFlow, in the user's terms."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

import tensorflow as tf

from vit_deploy.core.engine_errors import explained, first_line

REPORT = "report this with the model's config and what vit-deploy doctor says"
# TensorFlow reports what the file system said only in the words of its messages.
FULL_DISK = {code: os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}


@contextlib.contextmanager
def explained_tensorflow_errors(doing: str) -> Iterator[None]:
    """Turn TensorFlow's errors into ours.

    Args:
        doing: what failed, as in "writing the SavedModel".

    Raises:
        EngineError: with the first line of what TensorFlow said.
        OSError: the disk is full (`staging` says so to the user).
    """
    with explained(f"TensorFlow {tf.__version__} failed {doing}", tf.errors.OpError, REPORT, words=_first_line):
        try:
            yield
        except tf.errors.OpError as error:
            raise_full_disk(error.message)
            raise


def _first_line(error: Exception) -> str:
    return error.message.strip().splitlines()[0] if isinstance(error, tf.errors.OpError) else first_line(error)


def raise_full_disk(message: str) -> None:
    """Raise the OSError that a message tells of, if it tells of a full disk."""
    for code, words in FULL_DISK.items():
        if words in message:
            raise OSError(code, words)
