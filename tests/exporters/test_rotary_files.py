"""Exported files of models with rotary positions, run by plain engines, answer as the library they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import vit_deploy
from tests.peers import timm_families
from tests.peers.plain_engines import ENGINES
from vit_deploy.checkpoints import load
from vit_deploy.core.reference import forward
from vit_deploy.core.resize import resize

GOLDEN = Path(timm_families.__file__).parent / "golden" / "eva"
CASES = ("dinov3", "eva02_sub_norms", "rope_vit", "rope_vit_mixed", "pe")
SIZE, NEW_SIZE = (24, 32), (40, 48)
LIMIT = 1e-5  # of the largest logit


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """From a case and a size to the folder of its artifacts, each made once."""
    made: dict[tuple[str, tuple[int, int]], Path] = {}

    def export(case: str, size: tuple[int, int]) -> Path:
        if (case, size) not in made:
            folder = tmp_path_factory.mktemp(case)
            vit_deploy.export(GOLDEN / case, folder, formats=list(ENGINES), image_size=size)
            made[case, size] = folder
        return made[case, size]

    return export


@pytest.mark.slow
@pytest.mark.parametrize("format", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_a_plain_engine_gives_the_logits_that_timm_gave(case: str, format: str, exported: Any) -> None:
    expected = np.load(GOLDEN / case / "output.npy")
    found = ENGINES[format](exported(case, SIZE), timm_families.drawn_images(*SIZE))
    assert np.abs(found - expected).max() <= LIMIT * np.abs(expected).max()


@pytest.mark.parametrize("format", ENGINES)
@pytest.mark.parametrize("case", ["dinov3", "eva02_sub_norms"])
def test_at_another_size_it_gives_what_timm_gave_at_that_size(case: str, format: str, exported: Any) -> None:
    expected = np.load(GOLDEN / case / "resized_output.npy")
    found = ENGINES[format](exported(case, NEW_SIZE), timm_families.drawn_images(*NEW_SIZE))
    assert np.abs(found - expected).max() <= LIMIT * np.abs(expected).max()


def test_a_file_holds_sines_and_no_frequencies_that_heads_have_learned(exported: Any) -> None:
    graph = onnx.load(str(exported("rope_vit_mixed", SIZE) / "onnx-fp32" / "model.onnx")).graph
    assert not {"Sin", "Cos", "Range", "Tile", "If"} & {node.op_type for node in graph.node}
    assert not [tensor.name for tensor in graph.initializer if "frequencies" in tensor.name]
    tables = [tensor for tensor in graph.initializer if list(tensor.dims) in ([2, 25, 8], [2, 8, 25])]
    assert len(tables) >= 2 + 2  # of the first block's queries and keys at least, two each


@pytest.mark.slow
@pytest.mark.parametrize("case", ["dinov3", "eva02_sub_norms", "rope_vit_mixed", "pe"])
def test_integers_stay_within_their_tolerance(case: str, tmp_path: Path) -> None:
    outcome = vit_deploy.export(
        GOLDEN / case, tmp_path, formats=["onnx", "tflite"], precisions=["int8", "int8-static"], image_size=SIZE
    )
    assert {artifact.precision for artifact in outcome.results} == {"int8", "int8-static"}
    assert len(outcome.results) == 4  # each of them proven, or the export would have failed


def test_a_table_beside_rotary_positions_is_resampled_and_a_table_of_zeros_stays_one() -> None:
    with_table, without = load(GOLDEN / "rope_vit"), load(GOLDEN / "dinov3")
    images = timm_families.drawn_images(*NEW_SIZE)
    for checkpoint, has_table in ((with_table, True), (without, False)):
        larger = resize(checkpoint, NEW_SIZE)
        assert larger.weights["pos_embed.table"].any() == has_table
        assert np.isfinite(forward(larger, images)).all()
