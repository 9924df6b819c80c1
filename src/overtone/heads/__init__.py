"""Heads for dense prediction over the maps of any backbone of ours or of timm's."""

from overtone.heads.backbones import build_backbone, load_backbone_weights
from overtone.heads.building import (
    HEADS,
    PUBLISHED_SEGMENTERS,
    build_segmenter,
    checked_head_options,
    create_segmenter,
    is_segmenter,
    parse_segmenter,
)
from overtone.heads.segmenter import Segmenter, TrainingLogits

__all__ = [
    "HEADS",
    "PUBLISHED_SEGMENTERS",
    "Segmenter",
    "TrainingLogits",
    "build_backbone",
    "build_segmenter",
    "checked_head_options",
    "create_segmenter",
    "is_segmenter",
    "load_backbone_weights",
    "parse_segmenter",
]
