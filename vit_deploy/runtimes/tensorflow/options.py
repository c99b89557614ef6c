"""Threads, device and TF32 of TensorFlow, which is passed in: this file imports no engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from vit_deploy.errors import EngineError
from vit_deploy.runtimes import RuntimeOptions

DEVICES = {"cpu": "/CPU:0", "cuda": "/GPU:0"}  # of the GPUs, this process sees the one that was asked for
ONE_STREAM = "TensorFlow computes all streams of a process on one stream of the GPU, one call after the other"


def apply(tf: Any, options: RuntimeOptions) -> str:
    """Set the threads and choose the provider: a GPU where there is one, unless "cpu" is requested.

    Of several GPUs this process gets the one that is requested, and keeps it.

    Raises:
        EngineError: TensorFlow runs already with other threads or another GPU, or has no such provider or GPU.
    """
    if options.threads is not None:
        try:
            # One operator at a time, so that no more threads work than were requested.
            tf.config.threading.set_inter_op_parallelism_threads(1)
            tf.config.threading.set_intra_op_parallelism_threads(options.threads)
        except RuntimeError as error:
            raise EngineError(
                f"TensorFlow runs in this process already, so it cannot take {options.threads} threads any more",
                fix="run each number of threads in a process of its own, as vit-deploy bench does",
            ) from error
    gpus = tf.config.list_physical_devices("GPU")
    provider = options.provider or ("cuda" if gpus else "cpu")
    if provider not in DEVICES or (provider == "cuda" and not gpus):
        raise EngineError(
            f"TensorFlow {tf.__version__} has no provider {provider!r} here; it has cpu{' and cuda' if gpus else ''}",
            fix='run with --provider cpu, or pip install "vit-deploy[gpu-tf]" where there is an NVIDIA GPU',
        )
    if options.cuda_graph:
        raise EngineError("TensorFlow records no CUDA graphs", fix="leave --cuda-graph out, or export to ONNX")
    if provider != "cpu":
        _choose_gpu(tf, gpus, options.device)
    return provider


@contextlib.contextmanager
def tf32(tf: Any, provider: str, allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 on a GPU, and set it back as it was; it holds for all that this process computes."""
    if provider == "cpu":
        yield
        return
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(allowed)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def open_device(tf: Any, provider: str) -> None:
    """Have TensorFlow open a provider's device, with its libraries."""
    if provider != "cpu":
        with tf.device(DEVICES[provider]):
            tf.zeros(1)
            tf.test.experimental.sync_devices()


def _choose_gpu(tf: Any, gpus: list[Any], device: int) -> None:
    if not 0 <= device < len(gpus):
        raise EngineError(
            f"this process sees no GPU {device}: TensorFlow finds {len(gpus)}",
            fix="count from 0 those that nvidia-smi lists and CUDA_VISIBLE_DEVICES leaves",
        )
    try:
        tf.config.set_visible_devices([gpus[device]], "GPU")
        tf.config.experimental.set_memory_growth(gpus[device], True)  # or it takes all, and leaves none to others
    except RuntimeError as error:  # it runs already, with what it sees and the memory it has
        visible = tf.config.get_visible_devices("GPU")
        if visible[:1] != [gpus[device]]:
            others = ", ".join(str(gpus.index(gpu)) for gpu in visible) or "none"
            raise EngineError(
                f"TensorFlow runs in this process already, on GPU {others}, so it cannot take GPU {device} any more",
                fix="run each GPU in a process of its own, as vit-deploy bench does",
            ) from error
