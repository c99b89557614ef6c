"""A base model with what an adapter adds to its tensors, as a file of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vit_deploy.checkpoints.adapters.lora import Sum
from vit_deploy.checkpoints.source import TensorFile, TensorView
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError


@dataclass(frozen=True)
class Merged(TensorView):
    """A `TensorFile` with sums added to its tensors, and others in their place.

    Args:
        file: the base model.
        stored: name in the base model of each tensor that is left of it.
        sums: what is added, by the name here.
        halves: what is put in place of a half of the rows, by the name here: the half, the file and the name there.
        replaced: tensors in place of the base model's, or beside them: the file and the name there.
        note: what was merged, in words.
    """

    stored: Mapping[str, str]
    sums: Mapping[str, list[Sum]]
    halves: Mapping[str, list[tuple[int, TensorFile, str]]]
    replaced: Mapping[str, tuple[TensorFile, str]]
    note: Mapping[str, Any] = field(default_factory=dict)

    @property
    def documents(self) -> Mapping[str, Any]:
        """Of the base model."""
        return self.file.documents

    def names(self) -> Iterable[str]:
        """Names of all tensors."""
        return dict.fromkeys((*self.stored, *self.replaced))

    def stored_name(self, name: str) -> str:
        """The name in the base model, or its own where it is not of there."""
        return self.stored.get(name, name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor."""
        if name in self.replaced:
            file, theirs = self.replaced[name]
            return file.shape(theirs)
        return self.file.shape(self.stored[name])

    def dtype(self, name: str) -> str:
        """Of one tensor."""
        if name in self.replaced:
            file, theirs = self.replaced[name]
            return file.dtype(theirs)
        return self.file.dtype(self.stored[name])

    def read(self, name: str) -> Float32:
        """One tensor as float32, with what is added to it.

        Raises:
            CheckpointError: matrices that do not fit.
        """
        if name in self.replaced:
            file, theirs = self.replaced[name]
            return file.read(theirs)
        weight = self.file.read(self.stored[name])
        if name not in self.sums and name not in self.halves:
            return weight
        total = weight.astype(np.float64)
        for half, file, theirs in self.halves.get(name, ()):
            values = file.read(theirs)
            if 2 * len(values) != len(total):
                raise CheckpointError(
                    f"{theirs} {values.shape} is no half of {name} {weight.shape}", fix="get the adapter again"
                )
            total[half * len(values) : (half + 1) * len(values)] = values
        for term in self.sums.get(name, ()):
            rows = len(total) if term.half is None else len(total) // 2
            start = 0 if term.half is None else term.half * rows
            total[start : start + rows] = term.added_to(total[start : start + rows], weight.shape)
        return total.astype(np.float32)
