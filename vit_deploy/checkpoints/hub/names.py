"""Names of models on a hub: `hf:org/name[/FILE][@REVISION]`, `timm:NAME.TAG`, `keras:PRESET`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vit_deploy.checkpoints.paths import SUFFIXES
from vit_deploy.errors import HubError

MAIN = "main"  # the revision of a name that says none
OWNERS = {"timm": "timm", "keras": "keras"}  # whose repositories a scheme stands for
HF = "hf"
NAMED = re.compile(rf"({'|'.join([HF, *OWNERS])}):/*(.*)$", re.DOTALL)
URL = re.compile(r"https?:/+[^/]+/([^/]+/[^/?#]+)")
PART = re.compile(r"[A-Za-z0-9][\w.-]{0,95}$", re.ASCII)
REVISION = re.compile(r"[\w][\w./-]{0,254}$", re.ASCII)
FORMS = "hf:org/name, hf:org/name/model.safetensors, hf:org/name@REVISION, timm:NAME.TAG or keras:PRESET"


@dataclass(frozen=True)
class Name:
    """A model on a hub.

    Args:
        text: as the user gave it.
        repository: "owner/name".
        file: path of a file of weights in it; empty where the usual one is meant.
        revision: a branch, a tag or a commit.
    """

    text: str
    repository: str
    file: str = ""
    revision: str = MAIN

    @property
    def model(self) -> str:
        """What the model is called, without its owner: the name of a folder."""
        return self.repository.partition("/")[2]

    def with_file(self, file: str) -> str:
        """The name of one file of the same repository, for a user to give."""
        revision = "" if self.revision == MAIN else f"@{self.revision}"
        return f"{HF}:{self.repository}/{file}{revision}"


def parse(text: str) -> Name | None:
    """The model that a text names; None of a text that is a path.

    Raises:
        HubError: a name of another form.
    """
    if url := URL.match(text):
        raise HubError(f"{text} is an address, which is not read", fix=f"if it is a hub's, give {HF}:{url[1]}")
    named = NAMED.match(text)
    if named is None:
        return None
    scheme, rest = named.groups()
    path, at, revision = rest.partition("@")
    owner, name, *inside = [OWNERS[scheme], *path.split("/")] if scheme in OWNERS else [*path.split("/"), ""]
    inside = [part for part in inside if part or scheme in OWNERS]
    problems = []
    if not PART.match(owner) or not PART.match(name) or ".." in owner + name:
        problems.append("it names no owner and model")
    if scheme in OWNERS and inside:
        problems.append(f"{scheme}: takes one name, without a folder")
    if any(not part or part.startswith(".") or "\\" in part for part in inside):
        problems.append("its file lies outside of the repository")
    if at and (not REVISION.match(revision) or ".." in revision):
        problems.append(f"{revision!r} is no revision")
    if at and revision.endswith(SUFFIXES):
        problems.append("the revision comes last")
    if problems:
        raise HubError(f"{text} is no name of a model: {'; '.join(problems)}", fix=f"names are {FORMS}")
    return Name(text, f"{owner}/{name}", "/".join(inside), revision or MAIN)
