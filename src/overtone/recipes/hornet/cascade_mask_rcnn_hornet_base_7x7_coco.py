"""Cascade Mask R-CNN with HorNet-B (7x7) on COCO: 36 epochs of AdamW with layer decay.

Source: the detection settings of raoyongming/HorNet (Rao et al., NeurIPS 2022, arXiv:2207.14284).
Command: overtone train cascade_mask_rcnn_hornet_base_7x7_coco --data.root COCO
COCO has annotations/instances_train2017.json, instances_val2017.json, train2017/ and val2017/; see docs/detection.md.
Starts from the published weights hornet_base_7x7.rao_in1k.
Published result: box AP 53.3, mask AP 46.1 on val2017 (8 GPUs of 2 images).
Ours: not measured.
Deviations: none known.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train
from overtone.tasks.detection.settings import DetectionSettings

RECIPE = Recipe(
    task="detection",
    settings=DetectionSettings(
        longest=1333,
        shorter=(480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        crop=0.5,
        crop_shorter=(400, 500, 600),
        crop_sides=(384, 600),
        antialias=False,
        by_orientation=True,
        score="ap",
    ),
    model=Model(name="cascade_mask_rcnn_hornet_base_7x7", weights="hornet_base_7x7.rao_in1k", drop_path_rate=0.7),
    data=Data(
        preprocess=Preprocess(
            size=800,
            resize="shorter",
            crop_fraction=1.0,
            interpolation="bilinear",
            mean=(123.675 / 255, 116.28 / 255, 103.53 / 255),
            std=(58.395 / 255, 57.12 / 255, 57.375 / 255),
            exif="apply",
        ),
        drop_empty=True,
    ),
    augment=Augment(crop="none", hflip=0.5),
    optim=Optim(
        name="adamw",
        lr=2e-4,
        betas=(0.9, 0.999),
        weight_decay=0.05,
        decay="no_norm_bias",
        layer_decay=0.8,
        layer_groups="stage",
        layer_groups_depth=12,
    ),
    schedule=Schedule(name="multistep", milestones=(27, 33), gamma=0.1, warmup_steps=500, warmup_factor=0.001),
    train=Train(epochs=36, batch_size=16, sync_bn=True),
)
