"""Your own images with masks: LR-ASPP on a small HBONet, from nothing.

Source: ours.
Command: overtone train segment --data.root FOLDER
FOLDER has images/ and masks/ with files of the same names (and classes.txt or classes.csv); see docs/segmentation.md.
Images are resized into 480x360 pixels and cropped to 256; figures are at the images' own size. For finer detail:
--settings.scale 960 720 --data.preprocess.size 384; quicker: --settings.scale 320 240 --data.preprocess.size 192. The
root of the classes' shares as weights keeps rare classes (poles, signs) in play.
Published result: none.
Ours: CamVid (367 images, 11 classes, seed 0): mIoU 58.1 % and 87.7 % of the pixels on its 101 validation images at
480x360, after 607 CPU seconds on one thread of an AMD EPYC, evaluation after each epoch included, November 2026; up to
18 images/s while the machine, used by others too, was quieter. mIoU by epoch: 13, 25, 38, 43, 45, 39, 35, 50, 40, 47,
50, 52, 53, 52, 56, 58, 57, 55, 57, 56, 58, 57, 57, 58.
With --settings.scale 320 240 --data.preprocess.size 192 --train.epochs 8: mIoU 51.7 %, 86.2 % of the pixels, in 135
seconds; by epoch 10, 24, 39, 45, 48, 44, 45, 52. With AdamW at 0.004 in place of Muon, 6 epochs of that: 39.9 %.
Deviations: not applicable.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train
from overtone.tasks.segmentation.settings import SegmentationSettings

RECIPE = Recipe(
    task="segmentation",
    settings=SegmentationSettings(loss="cross_entropy", class_weights="sqrt", scale=(480, 360), ratio=(0.75, 1.5)),
    model=Model(name="hbonet_x050", head="lraspp"),
    data=Data(
        preprocess=Preprocess(
            size=256,
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
    optim=Optim(name="muon", lr=0.02, nesterov=True, weight_decay=0.01, decay="no_norm_bias", clip_grad=5.0),
    schedule=Schedule(name="poly", min_lr=0.0, power=0.9, warmup_epochs=0.5),
    train=Train(epochs=24, batch_size=8),
)
