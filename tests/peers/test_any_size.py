"""Models for images of any size, resized here, against the program itself at that size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.peers.census import LIMIT, distance
from tests.peers.census_transformers import NEEDS, pooled_patches
from tests.peers.huggingface_models import WIDE, library
from vit_deploy.checkpoints import load
from vit_deploy.core.reference import forward
from vit_deploy.core.resize import resize

pytestmark = pytest.mark.peers
for _module in NEEDS:
    pytest.importorskip(_module)


@pytest.mark.parametrize("size", [(16, 40), (40, 24), (8, 16)])
def test_a_siglip_2_of_any_size_is_resized_as_it_resizes_itself(size: tuple[int, int], tmp_path: Path) -> None:
    import torch

    transformers = library()
    torch.manual_seed(1)
    config = transformers.Siglip2VisionConfig(**WIDE, patch_size=8, num_patches=9)
    model = transformers.Siglip2VisionModel(config).eval()
    model.save_pretrained(tmp_path)
    images = np.random.default_rng(3).standard_normal((2, *size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = pooled_patches(model, torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    resized = resize(load(tmp_path), image_size=size)
    assert distance(forward(resized, images), expected) < LIMIT
