"""HorNet-S (GF) with UPerNet on ADE20K: 160,000 steps of AdamW with layer decay by stage, crops of 512.

Source: the training settings of raoyongming/HorNet (Rao et al., NeurIPS 2022, arXiv:2207.14284).
Command: overtone train upernet_hornet_small_gf_ade20k --data.root ADEChallengeData2016
Starts from the published weights of ImageNet-1K; from your own: --model.weights RUN. The folder is that of the
scene parsing benchmark, with images/ and annotations/ of training and validation.
The stored global filters, (24, 13) and (12, 7), are resized from those of the ImageNet-1K weights at 224 pixels.
Published result: mIoU 50.0 % at a single scale, 50.5 % at six scales with mirrored images (8 GPUs of 2 images).
Ours: not measured.
Deviations: evaluated every 16,000 steps, as published, but at the end of the epoch of 1,264 steps in which these are
complete. Batch norm of 8 processes is that of all together (train.sync_bn), as published, and on one device that of its
whole batch.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train
from overtone.tasks.segmentation.settings import SegmentationSettings

RECIPE = Recipe(
    task="segmentation",
    settings=SegmentationSettings(
        loss="cross_entropy",
        normalise="all",
        auxiliary_weight=0.4,
        scale=(2048, 512),
        antialias=False,
        ratio=(0.5, 2.0),
        most_of_one_class=0.75,
        distort=True,
        inference="slide",
        window=512,
        stride=341,
    ),
    model=Model(name="upernet_hornet_small_gf", weights="hornet_small_gf.rao_in1k", drop_path_rate=0.3),
    data=Data(
        preprocess=Preprocess(
            size=512,
            resize="shorter",
            crop_fraction=1.0,
            interpolation="bilinear",
            mean=(123.675 / 255, 116.28 / 255, 103.53 / 255),
            std=(58.395 / 255, 57.12 / 255, 57.375 / 255),
            exif="apply",
        ),
    ),
    augment=Augment(crop="random_resized", hflip=0.5),
    optim=Optim(
        name="adamw",
        lr=1e-4,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.05,
        decay="no_norm_bias",
        layer_decay=0.9,
        layer_groups="stage",
        layer_groups_depth=12,
        clip_grad=1.0,
    ),
    schedule=Schedule(name="poly", power=1.0, min_lr=0.0, warmup_steps=1500, warmup_factor=1e-6),
    train=Train(steps=160_000, eval_steps=16_000, batch_size=16, sync_bn=True),
)
