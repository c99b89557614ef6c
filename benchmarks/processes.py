"""In what folder and environment does every process run that is measured?"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment() -> dict[str, str]:
    """This process's own, in which this package is found, TensorFlow is quiet and Keras runs on it."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    python = {"PYTHONPATH": os.pathsep.join(paths)}
    return {**os.environ, **python, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
