"""Weights that a training has pruned, as numbers and masks of zeros and ones beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.source import TensorFile, TensorView
from vit_deploy.core.weights import Float32

ORIGINAL, MASK = "_orig", "_mask"  # what torch.nn.utils.prune puts behind a weight's name


@dataclass(frozen=True)
class Masked(TensorView):
    """A `TensorFile` whose pruned weights are shown as what they are with their masks.

    Args:
        file: that is read.
        masked: names of the numbers and of the mask, by the weight's.
    """

    masked: Mapping[str, tuple[str, str]]

    @property
    def documents(self) -> Mapping[str, Any]:
        """Of the file."""
        return self.file.documents

    def names(self) -> Iterable[str]:
        """Names of all tensors, a pruned weight's in place of its two."""
        originals = {original: name for name, (original, _) in self.masked.items()}
        masks = {mask for _, mask in self.masked.values()}
        return [originals.get(name, name) for name in self.file.names() if name not in masks]

    def stored_name(self, name: str) -> str:
        """The name in the file of a tensor."""
        return self.masked[name][0] if name in self.masked else name

    def read(self, name: str) -> Float32:
        """One tensor as float32, with its mask."""
        values = super().read(name)
        return values * self.file.read(self.masked[name][1]) if name in self.masked else values


def with_masks(file: TensorFile) -> TensorFile:
    """The file with its pruned weights put into one; itself where it has none."""
    names = frozenset(file.names())
    masked = {
        whole: (name, mask)
        for name in names
        if name.endswith(ORIGINAL)
        and (mask := (whole := name.removesuffix(ORIGINAL)) + MASK) in names
        and whole not in names
        and file.shape(name) == file.shape(mask)
    }
    return Masked(file, masked) if masked else file
