"""Your own images with masks: LR-ASPP on a small backbone, from nothing.

Source: ours.
Command: overtone train segment --data.root FOLDER
FOLDER has images/ and masks/ with files of the same names (and classes.txt or classes.csv); see docs/data.md.
Published result: none.
Ours: not measured.
Deviations: not applicable.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train
from overtone.tasks.segmentation.settings import SegmentationSettings

RECIPE = Recipe(
    task="segmentation",
    settings=SegmentationSettings(loss="cross_entropy", class_weights="sqrt", scale=(320, 240), ratio=(0.75, 1.5)),
    model=Model(name="mobilenetv2_x100", head="lraspp"),
    data=Data(
        preprocess=Preprocess(
            size=224,
            resize="shorter",
            crop_fraction=1.0,
            interpolation="bilinear",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        val_fraction=0.2,
        split_seed=0,
    ),
    augment=Augment(crop="random_resized", hflip=0.5),
    optim=Optim(name="adamw", lr=2e-3, weight_decay=0.01, decay="no_norm_bias", clip_grad=5.0),
    schedule=Schedule(name="poly", min_lr=0.0, power=0.9, warmup_epochs=2),
    train=Train(epochs=60, batch_size=16),
)
