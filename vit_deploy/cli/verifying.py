"""What `verify` runs on this machine: bundles and bare files, each whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vit_deploy.core.artifact import Artifact
from vit_deploy.errors import ArtifactError, ConfigError, EngineError, Failed, MissingEngineError
from vit_deploy.formats.bare import Assumption, Stated, bare_format, read_bare
from vit_deploy.verification import records
from vit_deploy.verification.expected import Reference
from vit_deploy.verification.golden import Golden
from vit_deploy.verification.parity import Verification
from vit_deploy.verification.targets import open_with_golden

OF_ONE_ENGINE = (MissingEngineError, EngineError)
"""Errors that are about one engine and one file, and say nothing of the next."""


@dataclass(frozen=True)
class Subject:
    """A model to prove.

    Args:
        artifact: the model.
        golden: its own golden data; None of a bare file.
        assumed: what was assumed of a bare file.
    """

    artifact: Artifact
    golden: Golden | None
    assumed: tuple[Assumption, ...] = ()


@dataclass(frozen=True)
class Proven:
    """A model that was run.

    Args:
        subject: the model.
        result: the result of it.
        goldens: what it was compared with, and its own golden data.
    """

    subject: Subject
    result: Verification
    goldens: tuple[Golden, ...]

    @property
    def record(self) -> dict[str, object]:
        """Of the result, with what was assumed."""
        found = records.verification(self.result)
        return found | ({"assumed": records.assumed(self.subject.assumed)} if self.subject.golden is None else {})


def open_subjects(paths: Sequence[Path], reference: Reference | None, stated: Stated) -> list[Subject]:
    """What is to be proven.

    Args:
        paths: the paths of bundles, `.keras` files and bare files.
        reference: that bare files are matched to.
        stated: what the user states of bare files.

    Raises:
        ArtifactError: what cannot be read, or a bare file of another model.
        ConfigError: a bare file without a reference or with several readings, or what is said of a bundle.
    """
    subjects = [_subject(path, reference, stated) for path in paths]
    if stated.options and all(each.golden is not None for each in subjects):
        raise ConfigError(f"{', '.join(stated.options)} is said of bare files, and there is none", fix="leave it out")
    return subjects


def _subject(path: Path, reference: Reference | None, stated: Stated) -> Subject:
    format = bare_format(path)
    if format is None:
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
    """The results, and what came to nothing because of its engine.

    Args:
        subjects: what is proven, in order.
        reference: what to compare with instead of recorded answers.
        prove: runs an artifact on golden data, held to a precision.
        progress: called with what is being done.

    Raises:
        MissingEngineError, EngineError: not one could be run; the error of the first.
        VitDeployError: as `Reference.golden` and `parity.verify`.
    """
    proven: list[Proven] = []
    failed: list[Failed] = []
    for subject in subjects:
        artifact, expected, precision = subject.artifact, subject.golden, subject.artifact.precision
        if reference is not None:
            progress(f"computing what {reference.path} answers")
            expected, precision = reference.golden(artifact, subject.golden)
        assert expected is not None  # a bare file has a reference
        progress(f"running {artifact.model_path}")
        known = (expected, *([subject.golden] if subject.golden is not None else []))
        try:
            proven.append(Proven(subject, prove(artifact, expected, precision), known))
        except OF_ONE_ENGINE as error:
            failed.append(Failed(str(artifact.path), artifact.format, artifact.precision, error))
    if failed and not proven:
        raise failed[0].error
    return proven, failed
