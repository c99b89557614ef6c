"""Writes golden/dialects/: small models of many programs as these save them, with images and what they answer.

Run from the repository's root where the programs' packages are installed, with the folder that holds clones of those
that have none (dino, ibot, ijepa, msn of facebookresearch and bytedance, ViT-pytorch of jeonsworld):
python -m tests.peers.make_dialect_golden CLONES [NAME…]
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.peers.dialect_models import CASES, answer_of, build, images_for, state_of

TARGET = Path(__file__).with_name("golden") / "dialects"
EXPECTED = "expected.npz"


def main(sources: Path, names: list[str]) -> None:
    for name in names or CASES:
        case, folder = CASES[name], TARGET / name
        try:
            model = build(case, sources)
        except ImportError as error:
            print(f"{name}: left as it is: {error}")
            continue
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        images = images_for(case)
        state = {key: np.ascontiguousarray(tensor) for key, tensor in state_of(case, model).items()}
        save_file(state, folder / "model.safetensors")
        for file, document in case.beside.items():
            (folder / file).write_text(json.dumps(document, indent=1) + "\n")
        np.savez_compressed(folder / EXPECTED, images=images, answer=answer_of(case, model, images))
        kilobytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e3
        print(f"{name}: {kilobytes:.0f} kB, {len(state)} tensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
