"""JSON records of exported and quantized artifacts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_deploy.exporters.publish import Exported, to_json
from vit_deploy.exporters.quantization.made import Made
from vit_deploy.exporters.quantization.tradeoffs import verdicts
from vit_deploy.formats.tensorrt_plan import RECORD


def records_of(
    made: Made, served: Mapping[str, Path], in_library: Mapping[str, Path] | None = None
) -> tuple[dict[str, Any], ...]:
    """One record an artifact, in order.

    Args:
        made: the artifacts.
        served: where the model of an artifact lies in a Triton repository, by the artifact's name.
        in_library: where it lies in the folder for transformers.js, likewise.
    """
    found = in_library or {}
    return tuple(
        _record(result, made, served.get(result.artifact.name), found.get(result.artifact.name))
        for result in made.results
    )


def _record(result: Exported, made: Made, served: Path | None, in_library: Path | None) -> dict[str, Any]:
    record, name = to_json(result), result.artifact.name
    if (built := result.artifact.options.get(RECORD)) is not None:
        record["tensorrt"] = dict(built)
    if (facts := made.facts.get(name)) is not None:
        record["facts"] = facts.to_dict()
        record["notes"] = [verdict for verdict in verdicts(made.facts) if verdict.startswith(f"{name} ")]
    if (budget := made.budgets.get(name)) is not None:
        record["budget"] = budget
    if (table := made.sensitivities.get(name)) is not None:
        record["sensitivity"] = [dataclasses.asdict(row) for row in table]
        record["keep_float"] = list(result.artifact.options["recipe"].get("keep_float", []))
    if served is not None:
        record["triton"] = str(served)
    if in_library is not None:
        record["transformers_js"] = str(in_library)
    return record
