"""The sum of a weight and the product of two matrices, as LoRA and DoRA train it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.errors import CheckpointError


@dataclass(frozen=True)
class Sum:
    """One product of matrices that is added to a weight.

    Args:
        file: that holds the matrices.
        down: name of the matrix (rank, inputs), or of a convolution's kernel with as many outputs.
        up: name of the matrix (outputs, rank).
        scale: of the product.
        transposed: whether the weight is (inputs, outputs), as an embedding's is.
        half: which half of the weight's rows it is for; None for all.
        magnitude: name of the lengths that the rows get afterwards (DoRA, Liu et al. 2024), or None.
    """

    file: TensorFile
    down: str
    up: str
    scale: float
    transposed: bool
    half: int | None
    magnitude: str | None = None

    def added_to(self, rows: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The rows of a weight with the product, and of the lengths that are recorded.

        Args:
            rows: those of the weight that the product is for.
            shape: the shape of the weight.

        Raises:
            CheckpointError: matrices or lengths of other shapes.
        """
        total: NDArray[np.float64] = rows + self.product(shape)
        if self.magnitude is None:
            return total
        lengths = self.file.read(self.magnitude).astype(np.float64).reshape(-1)
        if len(lengths) != len(total):
            raise CheckpointError(
                f"{self.magnitude} has {len(lengths)} lengths for {len(total)} rows", fix="get the adapter again"
            )
        flat = total.reshape(len(total), -1)
        made: NDArray[np.float64] = (flat * (lengths / np.linalg.norm(flat, axis=1))[:, None]).reshape(total.shape)
        return made

    def product(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The product in the shape of its part of the weight.

        Raises:
            CheckpointError: the matrices are of other shapes.
        """
        down, up = (self.file.read(name).astype(np.float64) for name in (self.down, self.up))
        rank = down.shape[0] if down.ndim > 1 else 0
        if not rank or up.ndim < 2 or up.shape[1] != rank or up.size != up.shape[0] * rank:
            raise self._misfit(shape)
        product = up.reshape(up.shape[0], rank) @ down.reshape(rank, -1) * self.scale
        product = product.T if self.transposed else product
        rows = (shape[0] // 2, *shape[1:]) if self.half is not None else shape
        if product.size != np.prod(rows) or product.shape[0] != rows[0]:
            raise self._misfit(shape)
        made: NDArray[np.float64] = product.reshape(rows)
        return made

    def _misfit(self, shape: tuple[int, ...]) -> CheckpointError:
        matrices = f"{self.down} {self.file.shape(self.down)} and {self.up} {self.file.shape(self.up)}"
        return CheckpointError(
            f"{matrices} make no product for a weight of the shape {shape}",
            fix="give the base model that the adapter was trained on",
        )
