"""What inspect says, as its tests read it, and the model that they let it look at."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from tests.exporters.variants import trained
from vit_deploy.cli import run
from vit_deploy.core import cost
from vit_deploy.core.checkpoint import Checkpoint

LABELS = ("cat", "dog", "größe", "[/bold] \x1b[31m", "last")


def labelled() -> Checkpoint:
    """A trained model with labels, which was resized."""
    return dataclasses.replace(trained(), labels=LABELS).with_step("resize", to=[24, 32])


def record(path: Path, capfd: Any, *options: str) -> dict[str, Any]:
    assert run(["inspect", str(path), "--json", *options]) == 0
    document = json.loads(capfd.readouterr().out)
    assert (document["schema"], document["command"], document["ok"]) == (1, "inspect", True)
    (result,) = document["results"]
    return result


def table(printed: str) -> dict[str, str]:
    """The cells of a table by the first of their row."""
    rows = (re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in printed.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def assert_says(found: dict[str, Any], model: Checkpoint) -> None:
    assert found["precision"] == "fp32"
    assert found["parameters"] == model.num_parameters
    assert found["macs"] == cost.macs(model.config)
    assert found["config"] == model.config.to_dict()
    assert found["preprocess"] == model.preprocess.to_dict()
    assert found["labels"] == len(LABELS)
    assert found["weights_digest"] == model.digest()
    assert found["provenance"] == [step.to_dict() for step in model.provenance]
