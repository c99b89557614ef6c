"""Model cards of artifacts, and their way to a hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vit_deploy.api.given import Artifacts, PathLike, Tell, artifact_paths, paths, silent
from vit_deploy.api.results import Outcome
from vit_deploy.checkpoints.hub.card import CARD
from vit_deploy.checkpoints.hub.progress import telling
from vit_deploy.checkpoints.hub.publishing import Upload, publisher
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.manifest import MANIFEST, UNPROVEN, read_artifact
from vit_deploy.core.staging import check_targets, staged_file
from vit_deploy.errors import ConfigError, UsageError
from vit_deploy.performance.card.front_matter import origins_of
from vit_deploy.performance.card.measured import Subject, check_documents, subjects_of
from vit_deploy.performance.card.page import page

SUFFIX = ".md"
MESSAGE = "Upload artifacts and their card with vit-deploy"


@dataclass(frozen=True)
class Card:
    """A model card.

    Args:
        text: in Markdown, front matter included.
        path: that it was written to; None where it was not.
        upload: what went to a hub, or was to go and was not confirmed; None where nothing was asked for.
        commit: address of the commit that was made; empty where none was.
    """

    text: str
    path: Path | None = None
    upload: Upload | None = None
    commit: str = ""


@dataclass(frozen=True)
class CardOutcome(Outcome[Card]):
    """What `card` has done; one result.

    Args:
        notes: what the documents say that is not in the card, in words.
    """

    notes: tuple[str, ...] = ()
    command: ClassVar[str] = "card"


def confirmed(upload: Upload) -> bool:
    """Yes to every upload: whoever calls the function has asked for it."""
    return True


def card(
    artifacts: Artifacts,
    output: PathLike | None = None,
    *,
    results: PathLike | Sequence[PathLike] = (),
    title: str | None = None,
    push: str | None = None,
    private: bool = False,
    confirm: Callable[[Upload], bool] = confirmed,
    force: bool = False,
    progress: Tell = silent,
) -> CardOutcome:
    """Make a model card in the hub's form: files, proof, accuracy, latency, how to run them, limits.

    Nothing is in it but what the artifacts record and what the documents have measured of them.

    Args:
        artifacts: artifacts, or folders of them.
        output: file to write, as README.md; None writes none.
        results: documents of `verify`, `evaluate`, `bench`, `export` and `quantize` about these artifacts.
        title: heading; None for the model's name.
        push: "owner/name" of a repository that the artifacts and the card go to, which is made if it is not there.
        private: whether that is made private.
        confirm: asked before anything goes, with all that would; nothing goes where it says no.
        force: whether a file that is there is replaced.
        progress: called with what is being done.

    Raises:
        UsageError: nothing to write and nothing to push.
        ArtifactError: no artifact, or one that was changed.
        EngineError: an ONNX artifact whose weights lie outside of it.
        ConfigError: two artifacts of one name, or one to push that is not proven.
        DataError: a file that is no document of results.
        HubError: the hub cannot be reached, or refuses.
        MissingEngineError: a hub needs huggingface_hub.
        OutputError: the file is there, or cannot be written.
    """
    target = None if output is None else Path(output)
    if target is None and push is None:
        raise UsageError("a card goes to a file, to a hub, or both; give --output README.md or --push OWNER/NAME")
    if target is not None and target.suffix != SUFFIX:
        raise UsageError(f"--output is {target.name!r}; expected a name that ends in {SUFFIX}")
    if target is not None:
        check_targets([target], force=force)
    documents = paths(results, "results") if results else []
    check_documents(documents)
    there = None if push is None else publisher(push)
    progress("reading the artifacts")
    found = [read_artifact(path) for path in artifact_paths(artifacts)]
    for artifact in found:
        refuse = FORMATS[artifact.format].refuse
        if refuse is not None:
            refuse.load()(artifact.model_path)
    subjects, notes = subjects_of(found, documents)
    unproven = [subject.folder for subject in subjects if subject.folder.endswith((UNPROVEN, ".unproven"))]
    if there is not None and unproven:
        raise ConfigError(f"{', '.join(unproven)} did not pass a proof", fix="publish those that did")
    repository = "" if push is None else push.removeprefix("hf:")
    text = page(subjects, title or _title(subjects), repository)
    upload, commit = None, ""
    if there is not None:
        with telling(progress):
            upload = there.look(_files(subjects, text), private=private)
            if confirm(upload):
                commit = there.send(upload, MESSAGE)
    if target is not None:
        with staged_file(target, force=force) as staged:
            staged.write_text(text, encoding="utf-8")
    made = Card(text, target, upload, commit)
    record = {
        "path": None if target is None else str(target),
        "artifacts": [str(subject.artifact.path) for subject in subjects],
        "text": text,
        "pushed": None if upload is None or not commit else {**upload.to_dict(), "commit": commit},
        "notes": list(notes),
    }
    return CardOutcome((made,), (record,), ok=upload is None or bool(commit), notes=notes)


def _title(subjects: Sequence[Subject]) -> str:
    names = dict.fromkeys(origin.repository.partition("/")[2] for origin in origins_of(subjects) if origin.repository)
    return " and ".join(names) or "Vision Transformer"


def _files(subjects: Sequence[Subject], text: str) -> dict[str, Path | bytes]:
    """The card, and of each artifact what its manifest lists, and nothing that lies beside it."""
    files: dict[str, Path | bytes] = {CARD: text.encode()}
    for subject in subjects:
        artifact = subject.artifact
        files |= {f"{subject.folder}/{name}": artifact.directory / name for name in (MANIFEST, *sorted(artifact.files))}
    return files
