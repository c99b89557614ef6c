"""Checkpoints of ViTs saved by Hugging Face transformers.

ViT, DeiT, DINOv2, BEiT, Data2VecVision, ViTMSN, I-JEPA, the encoder of ViTMAE, and the vision towers of CLIP and
SigLIP, with or without a head. A model without a classifier gives what transformers calls `last_hidden_state`, or the
pooled vector where BEiT, CLIP and SigLIP have one of their own; a config given can ask for another `pooling`, and for a
ViT's pooler with `pre_logits_dim`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vit_deploy.checkpoints.gathering import check_layers, gather
from vit_deploy.checkpoints.heads import label_problems
from vit_deploy.checkpoints.huggingface.config import are_nameless, facts_of, parts_unread, vision_config, whole_size
from vit_deploy.checkpoints.huggingface.families import MODEL_TYPES, family_of
from vit_deploy.checkpoints.huggingface.names import HEAD_TENSORS, computes_positions, encoders, named, origins, spare
from vit_deploy.checkpoints.huggingface.preprocess import preprocess_of, settings_in, supposed_of
from vit_deploy.checkpoints.huggingface.relative import INDEX, relative_origins
from vit_deploy.checkpoints.huggingface.towers import SPECTROGRAM, tower_in
from vit_deploy.checkpoints.importing import imported, settle
from vit_deploy.checkpoints.safetensors import CANONICAL, FORMAT
from vit_deploy.checkpoints.source import STATE_DICTS, Stated, TensorFile
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.resize import OF_THE_SIZE
from vit_deploy.errors import CheckpointError


class HuggingFaceSource:
    """A folder of transformers, or its weights alone."""

    heads = HEAD_TENSORS

    def detects(self, file: TensorFile) -> bool:
        """Whether the patch embedding has one of its names, or a config.json is of transformers, readable or not."""
        if file.container not in STATE_DICTS:
            return False
        ours = file.documents.get("format") == FORMAT or set(file.names()) >= CANONICAL
        return bool(encoders(file.names())) or (not ours and "model_type" in _config_of(file))

    def read(self, file: TensorFile, stated: Stated) -> Checkpoint:
        """The checkpoint; without a config.json the epsilon, the activation and the heads are assumed.

        Raises:
            CheckpointError: a model type that is no such ViT, a config or weights that do not fit.
            ConfigError: nobody says how many heads there are.
        """
        tower = tower_in(_config_of(file), frozenset(MODEL_TYPES))
        document, names = tower.document, named(file.names())
        family = family_of(document, names)
        if names is None:
            raise CheckpointError("its config.json is a ViT's, and it holds no patch embedding", fix="get it again")
        facts, labels = facts_of(file, names, family, document, stated)
        settled = settle(facts, stated)
        config = settled.config
        check_layers(file, config)
        unused = spare(names, config, tower.whole)
        ignored = frozenset(tensor for tensors in unused.values() for tensor in tensors)
        ignored |= {name for name in names.stored if name.endswith(INDEX)}
        problems = [*settled.problems, *(label_problems(labels, config.num_classes) if config.include_top else ())]
        weights = gather(
            file, origins(names, config) | relative_origins(names, config), config, ignored=ignored, found=problems
        )
        processor = {} if document.get("model_type") == SPECTROGRAM else settings_in(file.documents)
        whole = settled.input_size or (None if "image_size" in stated else whole_size(vision_config(document)))
        preprocess = preprocess_of(processor, family.processor, config, whole)
        left_out = [*unused, *parts_unread(vision_config(document), config.patch_size)]
        if labels and not config.include_top and not are_nameless(labels):
            left_out.append(f"{len(labels)} labels")
        return imported(
            settled,
            weights,
            family=str(family.convention),
            preprocess=preprocess,
            input_size=preprocess.input_size,
            supposed=supposed_of(processor),
            preprocess_assumed=not processor,
            labels=() if are_nameless(labels) else tuple(labels),
            dialect="huggingface",
            **(OF_THE_SIZE if computes_positions(names) else {}),
            left_out=left_out,
            preprocessing="recorded beside it" if processor else f"that of transformers' {family.processor} models",
        )


def check_model_type(file: TensorFile) -> None:
    """Refuse a folder of transformers whose model type has no ViT that can be read, whatever its weights hold.

    Raises:
        CheckpointError: its config.json is of such a model.
    """
    document = _config_of(file)
    if document:
        family_of(tower_in(document, frozenset(MODEL_TYPES)).document, None)


def _config_of(file: TensorFile) -> Mapping[str, Any]:
    found = file.documents.get("config.json")
    return found if isinstance(found, Mapping) and "model_type" in found else {}
