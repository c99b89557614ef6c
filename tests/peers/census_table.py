"""The README's table of sources, with what the census counts of each: python -m tests.peers.census_table writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.peers import (
    census_beside,
    census_files,
    census_keras_hub,
    census_more_transformers,
    census_originals,
    census_timm,
    census_timm_wrapper,
    census_towers,
    census_trainings,
    census_transformers,
    census_wrapping,
)
from tests.peers.census import Row

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- begin sources: written by python -m tests.peers.census_table -->", "<!-- end sources -->"
MODULES = (
    *(census_trainings, census_files, census_wrapping, census_beside),
    *(census_transformers, census_more_transformers, census_towers, census_keras_hub),
    *(census_timm_wrapper, census_originals),
)
ORIGINALS = census_trainings.ORIGINALS

SOURCES: Mapping[str, tuple[str, str]] = {
    "timm": (
        "`.safetensors`, `.pth`, `.ckpt`, hub folders",
        "ViT, DeiT (both heads, averaged), DeiT III, DINOv2 with and without registers, DINOv3, EVA, RoPE-ViT, "
        "NaFlexViT and RADIO at one size, "
        "CLIP, SigLIP: packed qkv and SwiGLU, every prefix token, layer scale, qk-norm, average and attention "
        "pooling; epsilon, activation, preprocessing and labels from `config.json`",
    ),
    "transformers": (
        "folders and files, sharded too, `.bin`",
        "ViT, DeiT (one and two heads), BEiT, Data2VecVision, DINOv2 with and without registers, DINOv3, ViTMAE's "
        "encoder, ViTMSN, I-JEPA, PIXIO, MLCD, ViTPose, AIMv2, TIPS v2, Pixtral, InternVL, "
        "timm's models and those of PerceptionLM and PE-AV, "
        "SigLIP 2 of any size at one; the towers of CLIP and its kin (MetaCLIP 2, AltCLIP, Chinese "
        "CLIP, CLIPSeg, OWL-ViT), SigLIP, BLIP and BLIP-2, GIT, Janus, Idefics, FLAVA; those inside LLaVA, PaliGemma, "
        "encoder-decoders, dual encoders; the encoders of YOLOS, DPT and Depth Anything; `config.json`, labels, "
        "`preprocessor_config.json`",
    ),
    ORIGINALS: (
        "`.pth`",
        "released files and trainings: the teacher or the target, without what was trained beside it",
    ),
    census_originals.SOURCE: (
        "`.pt`, `.pth`",
        "the towers of images alone and beside their texts: norms inside, biases one by one, relative and rotary "
        "positions, pooling",
    ),
    "torchvision": ("`.pth`", "vit_b_16 to vit_h_14, the names of its MLP before and since 0.13"),
    "OpenAI CLIP, OpenCLIP": (
        "`.pt`, `.bin`, `.safetensors`, hub folders",
        "the vision tower and its projection, CoCa's and those of timm too; `open_clip_config.json`",
    ),
    "vit-pytorch": ("`.pt`", "ViT and SimpleViT, of versions before 1.0 and since"),
    "mmpretrain, mmcls": ("`.pth`", "VisionTransformer with its heads, and the backbone alone"),
    "MONAI": ("`.pt`", "ViT of two dimensions, convolution and perceptron patches"),
    "jeonsworld/ViT-pytorch": ("`.bin`", "its VisionTransformer"),
    "pytorch_pretrained_vit": ("`.pth`", "its ViT"),
    "PEFT's adapters": (
        "folders, or inside the model's own file",
        "LoRA and DoRA, merged as PEFT merges them; ranks and alphas by pattern, modules saved whole",
    ),
    "Google: ViT, AugReg, big_vision, SigLIP": (
        "`.npz`",
        "all weights, `pre_logits` and attention pooling included, stacked blocks, bfloat16; heads from the shapes; "
        "the tanh GELU of Flax",
    ),
    "keras-hub": (
        "`.keras`, preset folders",
        "ViT, DeiT, DINOv2, DINOv3, the towers of CLIP, MetaCLIP 2 and SigLIP, with the image converter; keras-hub "
        "need not be installed",
    ),
    "dl_techniques": ("`.keras`", "its ViT, post-norm as it is there, every norm and feed-forward"),
    "vit-deploy": ("`.keras`, `.safetensors`, `.weights.h5` with `--config`", "everything"),
}
"""Files and what is carried over, by the source of the rows."""

ANY = "trainings"  # the source of rows that are about the wrapping of a model, whichever it is


def all_rows() -> list[Row]:
    """Every row of the census, whether or not what it needs is installed."""
    return [row for module in MODULES for row in module.rows()]


def table() -> str:
    """The table, and the sums behind it."""
    rows = all_rows()
    return "\n".join([BEGIN, *_lines(rows), END])


def _lines(rows: list[Row]) -> Iterator[str]:
    yield "| source | files | carries over | exact | refused |"
    yield "|---|---|---|---|---|"
    for source, (files, carried) in SOURCES.items():
        yield f"| {source} | {files} | {carried} | {_counts(rows, source)} |"
    exact, refused = _count(rows, None, exact=True), _count(rows, None, exact=False)
    wrapped = _count(rows, ANY, exact=True), _count(rows, ANY, exact=False)
    names, read = census_timm.counts()
    source = census_originals.SOURCE
    yield ""
    yield (
        f"*exact* and *refused* count the situations of [a census](tests/peers), made with the libraries themselves or "
        f"recorded from them: {exact} answer as the library does, to 1e-5 of the largest logit, {wrapped[0]} of them "
        f"about how a training wraps its model; {refused} are refused by what they are, with what to do. Of the "
        f"{source}, the layouts are written here and no file of the authors was read: what counts is what timm's own "
        f"conversion of them answers, and transformers' model for AIMv2 with texts. Of "
        f"{names} names that timm registers in its modules of plain ViTs, {read} are exact "
        f"([walked in one go](benchmarks/README.md#census)); the others are refused by name."
    )


def _counts(rows: list[Row], source: str) -> str:
    exact, refused = _count(rows, source, exact=True), _count(rows, source, exact=False)
    return f"{exact} | {refused}" if exact or refused else " | "


def _count(rows: list[Row], source: str | None, *, exact: bool) -> int:
    return sum(1 for row in rows if source in (None, row.source) and (not row.refused) is exact)


def main() -> None:
    text = README.read_text(encoding="utf-8")
    start, end = text.index(BEGIN), text.index(END) + len(END)
    README.write_text(text[:start] + table() + text[end:], encoding="utf-8")


if __name__ == "__main__":
    main()
