"""Writes golden/towers/: rows of the census that are towers inside models of transformers, and what these answer.

Run from the repository's root where torch and transformers are installed: python -m tests.peers.make_tower_golden
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from tests.peers import census_timm_wrapper, census_transformers

TARGET = Path(__file__).with_name("golden") / "towers"
EXPECTED = "expected.npz"
GOLDEN = (
    *("owl-vit detection", "blip captions", "git captions", "idefics 3", "yolos", "pixio"),
    *("llava", "dual encoder of vit", "depth anything", "no registers", "mlcd of another base", "dinov3"),
    *("siglip 2 of any size", "pixtral with silu", "aimv2", "tips v2 gated"),
    *("internvl of 6 billion", "perception lm", "pe video", "timm wrapper without pooling"),
)


def main() -> None:
    shutil.rmtree(TARGET, ignore_errors=True)
    for row in (*census_transformers.rows(), *census_timm_wrapper.rows()):
        if row.name not in GOLDEN:
            continue
        folder = TARGET / row.name.replace(" ", "-")
        folder.mkdir(parents=True)
        made = row.make(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        assert made.images is not None
        assert made.answer is not None
        np.savez_compressed(folder / EXPECTED, images=made.images, answer=made.answer)
        print(f"{folder.name}: {sum(path.stat().st_size for path in folder.iterdir()) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
