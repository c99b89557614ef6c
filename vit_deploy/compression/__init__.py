"""Methods that make a trained ViT smaller or ready for integers, and their options."""

from __future__ import annotations

import importlib.metadata

from vit_deploy.core.options.compressing import Augmentation, Centroids, CompressOptions, Pattern, Schedule
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.errors import MissingEngineError

__all__ = ["METHODS", "SHRINK", "Augmentation", "Centroids", "CompressOptions", "Pattern", "Schedule", "check"]

SHRINK = "shrink"  # the method that changes sizes
NEEDS = ("tensorflow", "keras", "tf_keras", "tensorflow_model_optimization")

METHODS = Registry(
    "method",
    {
        "prune": Plugin("vit_deploy.compression.prune:Prune", extra="compress", needs=NEEDS),
        "cluster": Plugin("vit_deploy.compression.cluster:Cluster", extra="compress", needs=NEEDS),
        "qat": Plugin("vit_deploy.compression.qat:Qat", extra="compress", needs=NEEDS),
        "shrink": Plugin("vit_deploy.compression.shrink:Shrink", extra="compress", needs=NEEDS),
    },
)


def check(method: str) -> None:
    """Whether what the method needs is installed.

    Raises:
        ConfigError: there is no such method.
        MissingEngineError: it is not; the fix does not let pip put a second TensorFlow beside the first.
    """
    missing = METHODS[method].missing()
    if not missing:
        return
    if "tensorflow" in missing or "keras" in missing:
        fix = 'pip install "vit-deploy[cpu]", and then see this message again'
    else:
        release = ".".join(_tensorflow_version().split(".")[:2])
        fix = (
            f'pip install --no-deps "tf_keras=={release}.*" tensorflow-model-optimization dm-tree "absl-py~=1.2" six '
            "(all of the extra vit-deploy[compress]; without --no-deps, pip adds the package tensorflow, whose files "
            "are also those of tensorflow-cpu)"
        )
    raise MissingEngineError(f"the method {method!r} needs {', '.join(missing)}, which is not installed", fix=fix)


def _tensorflow_version() -> str:
    for name in ("tensorflow-cpu", "tensorflow"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "2.21"
