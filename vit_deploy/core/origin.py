"""Where a model comes from: the repository and commit that it was fetched from, and its licence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vit_deploy.core.provenance import Step
from vit_deploy.errors import LicenceError

REQUIRE_LICENCE = "require_licence"  # in what is stated of a model: licences, of which it has to have one
ORIGIN = "origin"  # the action of the step that says it, before all that was done to the model


@dataclass(frozen=True)
class Origin:
    """What is known of a model before it was read.

    Args:
        source: what the user gave, as "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"; empty for a local folder.
        repository: "owner/name" on a hub.
        revision: the branch, tag or commit that was asked for.
        commit: that it stood for.
        url: page of the repository at that commit.
        licence: identifier that the model's card states, as "apache-2.0"; several are joined by ", ".
        licence_link: where its text is, where the card says it.
        files: SHA-256 of each file of weights, by its name in the repository.
        unreached: why the hub was not asked and what was fetched before is taken; empty where it was asked.
        not_run: code that comes with the model, of which nothing is run.
    """

    source: str = ""
    repository: str = ""
    revision: str = ""
    commit: str = ""
    url: str = ""
    licence: str = ""
    licence_link: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    unreached: str = ""
    not_run: tuple[str, ...] = ()

    @property
    def step(self) -> Step | None:
        """The step of a provenance that says all of it; None where nothing is known."""
        facts = self.to_dict()
        return Step(ORIGIN, facts) if facts else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of what is known."""
        plain = {**vars(self), "files": dict(self.files), "not_run": list(self.not_run)}
        return {name: value for name, value in plain.items() if value}

    @property
    def in_words(self) -> str:
        """What a user has to know of it."""
        words = []
        if self.repository:
            words.append(f"{self.repository} at {self.commit[:12]}, licence {self.licence or 'not stated'}")
        if self.unreached:
            words.append(f"taken from the cache, for {self.unreached}")
        if self.not_run:
            words.append(f"not run, as no code of a model is: {', '.join(self.not_run)}")
        return "; ".join(words)


def origin_in(provenance: Iterable[Step]) -> Origin | None:
    """What a provenance says of the origin; None where it says nothing."""
    known = {field.name for field in dataclasses.fields(Origin)}
    for step in provenance:
        if step.action == ORIGIN:
            facts: dict[str, Any] = {name: value for name, value in step.facts.items() if name in known}
            texts = {name: str(value) for name, value in facts.items() if name not in ("files", "not_run")}
            files, not_run = facts.get("files"), facts.get("not_run")
            return Origin(
                **texts,
                files={str(name): str(value) for name, value in files.items()} if isinstance(files, Mapping) else {},
                not_run=tuple(map(str, not_run)) if isinstance(not_run, list | tuple) else (),
            )
    return None


def licence_in(provenance: Iterable[Step]) -> str:
    """The licence that a provenance states; empty where it states none."""
    origin = origin_in(provenance)
    return "" if origin is None else origin.licence


def check_licence(licence: str, required: Sequence[str], what: str) -> None:
    """Refuse a model whose licence is none of those required; nothing is refused where none is required.

    Args:
        licence: as its card states it, several joined by ", ", of which every one has to be required.
        required: identifiers, in any case.
        what: name of the model, for the message.

    Raises:
        LicenceError: another licence, or none that is stated.
    """
    required = required.split(",") if isinstance(required, str) else required
    accepted = {licence.strip().lower() for licence in required}
    stated = [part.strip().lower() for part in licence.split(",") if part.strip()]
    if not required or (stated and all(part in accepted for part in stated)):
        return
    found = f"the licence of {what} is {licence}" if stated else f"{what} states no licence"
    raise LicenceError(
        f"{found}; required is {' or '.join(required)}",
        fix="take another model, or add the licence to --require-licence once you have read it"
        if stated
        else "read what its authors say, and leave --require-licence out",
    )
