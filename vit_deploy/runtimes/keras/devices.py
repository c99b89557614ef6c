"""The device and the rounding of Keras' backends; they are imported only where they are the one in use."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from vit_deploy.core.format_table import FORMATS
from vit_deploy.errors import EngineError
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.tensorflow.options import apply, tf32

EAGER = "-eager"
OTHERS_EXTRA = {
    "jax": 'pip install "jax[cuda13]"',
    "torch": "install a build of PyTorch with CUDA, as pytorch.org says",
}


def chosen_device(backend: str, options: RuntimeOptions) -> str:
    """Set a backend up and choose what executes the model: "cpu" or "cuda".

    Args:
        backend: the backend of Keras.
        options: the requested options.

    Raises:
        EngineError: options that the backend cannot take, or a GPU that it does not see.
    """
    known = FORMATS.runtimes()["keras"].providers
    if options.provider is not None and options.provider not in known:
        raise EngineError(f"Keras has no provider {options.provider!r}", fix=f"choose one of {', '.join(known)}")
    provider = None if options.provider is None else options.provider.removesuffix(EAGER)
    if backend == "tensorflow":
        import tensorflow as tf

        return apply(tf, dataclasses.replace(options, provider=provider))
    if options.threads is not None:
        raise EngineError(
            f"Keras on {backend} takes no number of threads here",
            fix="set KERAS_BACKEND=tensorflow, or leave --threads out",
        )
    if options.cuda_graph:
        raise EngineError("Keras records no CUDA graphs here", fix="leave --cuda-graph out, or export to ONNX")
    if provider == "cuda":
        _refuse_unseen(backend, options.device)
    return provider or "cpu"


def name_of(backend: str, provider: str, device: int) -> str:
    """How Keras calls a device."""
    if provider == "cpu":
        return "cpu:0"
    return "gpu:0" if backend == "tensorflow" else f"gpu:{device}"  # TensorFlow sees the one that was chosen


@contextlib.contextmanager
def rounding(backend: str, provider: str, allow_tf32: bool) -> Iterator[None]:
    """Keep a backend on a GPU from rounding factors to TF32 where that is not allowed; what it was is set back.

    For TensorFlow and PyTorch it holds for all that the process computes. JAX keeps it by thread: see `call_rounding`.
    """
    if backend == "tensorflow":
        import tensorflow as tf

        with tf32(tf, provider, allow_tf32):
            yield
    elif backend == "torch" and provider == "cuda" and not allow_tf32:
        import torch

        flags: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
        before = [flag.allow_tf32 for flag in flags]
        for flag in flags:
            flag.allow_tf32 = False
        try:
            yield
        finally:
            for flag, value in zip(flags, before, strict=True):
                flag.allow_tf32 = value
    else:
        yield


@contextlib.contextmanager
def call_rounding(backend: str, provider: str, allow_tf32: bool) -> Iterator[None]:
    """The same around one call, for JAX: it compiles for the precision that is in force."""
    if backend == "jax" and provider == "cuda" and not allow_tf32:
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    else:
        yield


def _refuse_unseen(backend: str, device: int) -> None:
    count = _count_gpus(backend)
    if not count:
        raise EngineError(f"Keras on {backend} sees no GPU", fix=f"{OTHERS_EXTRA[backend]}, or run with --provider cpu")
    if not 0 <= device < count:
        raise EngineError(
            f"this process sees no GPU {device}: {backend} finds {count}",
            fix="count from 0 those that nvidia-smi lists and CUDA_VISIBLE_DEVICES leaves",
        )


def _count_gpus(backend: str) -> int:
    if backend == "torch":
        import torch

        return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0
    import jax

    try:
        return len(jax.devices("gpu"))
    except RuntimeError:  # it has no such platform
        return 0
