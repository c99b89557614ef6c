"""Clustering: the weights of each kernel share a few learned values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster import cluster_weights

from vit_deploy.compression import Centroids, CompressOptions
from vit_deploy.compression.keras2 import Twin
from vit_deploy.compression.method import Call
from vit_deploy.core.checkpoint import Ranges
from vit_deploy.core.weights import Float32

SPARSE = 0.1  # fraction of zeros from which a kernel counts as pruned, and keeps them

INITIAL = {
    Centroids.KMEANS: "KMEANS_PLUS_PLUS",
    Centroids.LINEAR: "LINEAR",
    Centroids.DENSITY: "DENSITY_BASED",
    Centroids.RANDOM: "RANDOM",
}


class Cluster:
    """Weight clustering, by tensorflow-model-optimization; see `method.Method`."""

    def __init__(self, options: CompressOptions, layers: Collection[str], steps: int) -> None:
        self.options = options
        self.layers = frozenset(layers)
        self.wrapped: dict[str, Any] = {}

    def wrap(self, name: str, dense: Any) -> Call:
        """A layer that looks its kernel up; zeros of a pruned kernel stay zero. Kernels of few values stay as is."""
        kernel = dense.kernel.numpy()
        if name not in self.layers or len(np.unique(kernel)) <= self.options.clusters:
            return dense  # type: ignore[no-any-return]
        initial = getattr(tfmot.clustering.keras.CentroidInitialization, INITIAL[self.options.centroids])
        layer = cluster_weights(
            dense,
            number_of_clusters=self.options.clusters,
            cluster_centroids_init=initial,
            preserve_sparsity=bool(np.mean(kernel == 0) >= SPARSE),
        )
        self.wrapped[name] = layer
        return layer  # type: ignore[no-any-return]

    def begin(self, twin: Twin, batches: Iterable[Any]) -> None:
        """Centroids are made with the layers."""

    def end_epoch(self) -> None:
        """Each call looks the kernels up again."""

    def is_settled(self, step: int) -> bool:
        """Whether the weights have their final form, which they have from the first step."""
        return True

    def kernels(self) -> Mapping[str, Float32]:
        """The kernels as they are looked up."""
        found = {}
        for name, layer in self.wrapped.items():
            layer.update_clustered_weights_associations()
            # Looking up multiplies by one for the gradient's sake, so the values are the centroids themselves.
            found[f"{name}.kernel"] = np.asarray(layer.get_weight_from_layer("kernel"))
        return found

    def ranges(self) -> Ranges:
        """None are learned."""
        return {}
