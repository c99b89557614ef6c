"""How does TensorFlow get its threads and its device? (TensorFlow is passed in: this file imports no engine.)"""

from __future__ import annotations

import contextlib
from typing import Any

from vit_deploy.errors import EngineError
from vit_deploy.runtimes import RuntimeOptions

DEVICES = {"cpu": "/CPU:0", "cuda": "/GPU:0"}


def apply(tf: Any, options: RuntimeOptions) -> str:
    """Set the threads and choose the provider: the first GPU where there is one, unless "cpu" is asked for.

    Raises:
        EngineError: TensorFlow runs already with other threads, or has no such provider.
    """
    if options.threads is not None:
        try:
            # One operator at a time, so that no more threads work than were asked for.
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
    if provider != "cpu":
        with contextlib.suppress(RuntimeError):  # it runs already, with the memory it has
            for gpu in gpus:
                tf.config.experimental.set_memory_growth(gpu, True)  # or it takes all, and leaves none for other cases
        tf.config.experimental.enable_tensor_float_32_execution(options.allow_tf32)
    return provider
