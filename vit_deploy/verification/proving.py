"""Proofs of several models, each whatever becomes of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.image_sizes import listed
from vit_deploy.errors import ArtifactError, ConfigError, EngineError, Failed, MissingEngineError
from vit_deploy.formats.bare import Assumption, Stated, bare_format, read_bare
from vit_deploy.verification import records
from vit_deploy.verification.expected import Reference
from vit_deploy.verification.golden import Golden
from vit_deploy.verification.locate.failure import Finding
from vit_deploy.verification.targets import open_with_golden
from vit_deploy.verification.verifying import Check, Verification

OF_ONE_ENGINE = (MissingEngineError, EngineError)
"""Errors that are about one engine and one file, and say nothing of the next."""


@dataclass(frozen=True)
class Subject:
    """A model to prove.

    Args:
        artifact: the model.
        golden: its own golden data; None for a bare file.
        assumed: what was assumed of a bare file.
        is_for_one: whether only the size that it is taken for is to be proven.
    """

    artifact: Artifact
    golden: Golden | None
    assumed: tuple[Assumption, ...] = ()
    is_for_one: bool = False


@dataclass(frozen=True)
class Proven:
    """A model that was run.

    Args:
        subject: the model.
        result: its verification.
        goldens: what it was compared with, and its own golden data.
        finding: where it leaves the reference; None where nobody looked, and for a model that did not fail.
        sought: whether the place was to be looked for.
    """

    subject: Subject
    result: Verification
    goldens: tuple[Golden, ...]
    finding: Finding | None = None
    sought: bool = False

    @property
    def record(self) -> dict[str, Any]:
        """The result as plain JSON values, with what was assumed of a bare file and where it was located."""
        found = records.verification(self.result)
        if self.subject.golden is None:
            found["assumed"] = records.assumed(self.subject.assumed)
        if self.sought:
            found["located"] = None if self.finding is None else self.finding.to_dict()
        return found


def open_subjects(
    paths: Sequence[Path], reference: Reference | None, stated: Stated, signature: str | None = None
) -> list[Subject]:
    """Open the models that are to be proven.

    Args:
        paths: artifacts, `.keras` files and bare files.
        reference: the model that bare files are matched to.
        stated: what is said of bare files.
        signature: the only one to prove of files with several.

    Raises:
        ArtifactError: what cannot be read, or a bare file of another model.
        ConfigError: a bare file without a reference or with several readings, or what is said of an artifact.
    """
    subjects = [_subject(path, reference, stated) for path in paths]
    if stated.options and all(subject.golden is not None for subject in subjects):
        raise ConfigError(f"{', '.join(stated.options)} is said of bare files, and there is none", fix="leave it out")
    return subjects if signature is None else [_taken_for(subject, signature) for subject in subjects]


def _taken_for(subject: Subject, signature: str) -> Subject:
    artifact = subject.artifact.with_signature(signature)
    golden = subject.golden
    if golden is not None:
        golden = dataclasses.replace(golden.at(artifact.config.image_size), sizes=())
    return dataclasses.replace(subject, artifact=artifact, golden=golden, is_for_one=True)


def _subject(path: Path, reference: Reference | None, stated: Stated) -> Subject:
    if bare_format(path) is None:
        return Subject(*open_with_golden(path))
    if reference is None:
        raise ArtifactError(
            f"{path} is a bare file, without recorded answers to compare with",
            fix="add --against CHECKPOINT, the checkpoint that it was made from",
        )
    artifact, assumed = read_bare(path, reference.known, stated)
    return Subject(artifact, None, assumed)


def prove_each(
    subjects: Sequence[Subject],
    reference: Reference | None,
    prove: Callable[[Artifact, Golden, str], Verification],
    progress: Callable[[str], object],
) -> tuple[list[Proven], list[Failed]]:
    """Prove models one after the other; gives the results, and what came to nothing because of its engine.

    Args:
        subjects: the models, in order.
        reference: what to compare with instead of recorded answers.
        prove: runs an artifact on golden data, held to a precision.
        progress: called with what is being done.

    Raises:
        MissingEngineError, EngineError: not one could be run; the error of the first.
        VitDeployError: as `Reference.golden` and `verifying.verify`.
    """
    proven: list[Proven] = []
    failed: list[Failed] = []
    for subject in subjects:
        artifact, expected, precision = subject.artifact, subject.golden, subject.artifact.precision
        if reference is not None:
            progress(f"computing what {reference.path} answers")
            expected, precision = reference.golden(artifact, subject.golden)
            if not subject.is_for_one:
                expected = dataclasses.replace(expected, sizes=reference.at_further_sizes(artifact))
        assert expected is not None  # a bare file has a reference
        progress(f"running {artifact.model_path}")
        known = (expected, *([subject.golden] if subject.golden is not None else []))
        try:
            result = prove(artifact, expected, precision)
            left_out = [] if subject.is_for_one else _sizes_left_out(artifact, expected, reference)
            result = dataclasses.replace(result, checks=(*result.checks, *left_out))
            proven.append(Proven(subject, result, known))
        except OF_ONE_ENGINE as error:
            failed.append(Failed(str(artifact.path), artifact.format, artifact.precision, error))
    if failed and not proven:
        raise failed[0].error
    return proven, failed


def _sizes_left_out(artifact: Artifact, expected: Golden, reference: Reference | None) -> list[Check]:
    """What says which sizes of an artifact were not proven; nothing where all were."""
    proven = {artifact.config.image_size, *(sized.pixels for sized in expected.sizes)}
    others = [one for one in artifact.sizes if one.pixels not in proven]
    if not others or reference is None:
        return []
    return [Check("sizes", True, f"left out: {reference.path} takes no images of {listed(others)} pixels")]
