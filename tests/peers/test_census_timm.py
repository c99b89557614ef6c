"""The census of timm's names: each is exact, or refused with what it needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.peers import census_timm
from tests.peers.census import LIMIT, distance
from vit_deploy.checkpoints import load
from vit_deploy.core.reference import forward
from vit_deploy.errors import VitDeployError

ROWS = census_timm.rows()


def test_nearly_all_names_of_timm_are_exact() -> None:
    names, read = census_timm.counts()
    assert read >= 0.98 * names


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("name", ROWS)
def test_a_name_of_timm_is_exact_or_refused_with_what_it_needs(name: str, timm: Any, tmp_path: Path) -> None:
    made = census_timm.make(timm, name, tmp_path)
    assert made.images is not None and made.answer is not None
    if not ROWS[name]:
        assert distance(forward(load(made.path), made.images), made.answer) < LIMIT
        return
    with pytest.raises(VitDeployError) as caught:
        load(made.path)
    assert re.search(r"is not a ViT that vit-deploy knows: it has|is of no known dialect", caught.value.message)
    assert caught.value.fix
