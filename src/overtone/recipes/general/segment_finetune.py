"""Your own images with masks, from trained weights: those of a backbone or of a segmentation network.

Source: ours; the segment recipe with a lower learning rate.
Command: overtone train segment_finetune --data.root FOLDER --model.weights hbonet_x100.dli14_in1k
FOLDER has images/ and masks/ with files of the same names; see docs/data.md. Weights of a classifier become the
backbone; of a run or file of a segmentation network everything is taken that has the same classes. For a network of
timm's: --model.name resnet18.a1_in1k --model.head fcn.
Published result: none.
Ours: not measured.
Deviations: not applicable.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train
from overtone.tasks.segmentation.settings import SegmentationSettings

NEEDS_WEIGHTS = True
RECIPE = Recipe(
    task="segmentation",
    settings=SegmentationSettings(loss="cross_entropy", class_weights="sqrt", ratio=(0.5, 1.5)),
    model=Model(name="hbonet_x100", head="lraspp"),
    data=Data(
        preprocess=Preprocess(
            size=320,
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
    optim=Optim(name="adamw", lr=5e-4, weight_decay=0.01, decay="no_norm_bias", clip_grad=5.0),
    schedule=Schedule(name="poly", min_lr=0.0, power=0.9, warmup_epochs=1),
    train=Train(epochs=40, batch_size=16),
)
