"""Writes golden/eva: small models of timm's class Eva, one a convention of rotary positions, and what they compute.

Run from the repository's root where torch and timm are installed: python -m tests.peers.make_eva_golden
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from tests import torchvision_stand_in
from tests.peers import census_eva, timm_families

TARGET = Path(__file__).parent / "golden" / "eva"
SMALL = {"patch_size": [8, 4], "img_size": [24, 32], "embed_dim": 16, "num_heads": 2, "mlp_ratio": 2, "num_classes": 5}
NEW_SIZE = (40, 48)
CASES = {
    "dinov3": "vit_small_plus_patch16_dinov3_qkvb",
    "eva02": "eva02_tiny_patch14_224",
    "eva02_sub_norms": "eva02_base_patch16_clip_224",
    "eva02_enormous": "eva02_enormous_patch14_clip_224",
    "pe": "vit_pe_core_base_patch16_224",
    "pe_spatial": "vit_pe_spatial_gigantic_patch14_448",
    "rope_vit": "vit_small_patch16_rope_ape_224",
    "rope_vit_mixed": "vit_small_patch16_rope_mixed_224",
    "sbb": "vit_betwixt_patch16_rope_reg4_gap_256",
    "sapiens2": "vit_base_patch16_sapiens2",
}


def main() -> None:
    torchvision_stand_in.install()
    import timm

    shutil.rmtree(TARGET, ignore_errors=True)
    for case, name in CASES.items():
        folder = TARGET / case
        more = {"num_kv_heads": [2, 1]} if case == "sapiens2" else {"attn_pool_num_heads": 4} if case == "pe" else {}
        model = census_eva.make(timm, name, **SMALL, **more)
        census_eva.save(timm, model, folder)
        images = timm_families.drawn_images(*SMALL["img_size"])
        np.save(folder / "output.npy", timm_families.output(model, images))
        resized = census_eva.make(timm, name, **SMALL, **more)
        resized.set_input_size(img_size=NEW_SIZE)
        images = timm_families.drawn_images(*NEW_SIZE)
        np.save(folder / "resized_output.npy", timm_families.output(resized, images))
    files = [path for path in TARGET.rglob("*") if path.is_file()]
    print(f"{TARGET}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e3:.1f} kB")


if __name__ == "__main__":
    main()
