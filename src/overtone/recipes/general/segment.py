"""Your own images with masks: LR-ASPP on a small HBONet, from nothing.

Source: ours.
Command: overtone train segment --data.root FOLDER
FOLDER has images/ and masks/ with files of the same names (and classes.txt or classes.csv); see docs/data.md. Images
are resized into 320x240 pixels and cropped to 192, so that an epoch of CamVid's 367 images takes about 16 seconds of
one core; masks stay at the images' own size in evaluation. For finer detail: --settings.scale 640 480
--data.preprocess.size 384. The root of the classes' shares as weights keeps rare classes (poles, signs) in play.
Published result: none.
Ours: CamVid (367 images, 11 classes, seed 0), 6 epochs in place of 60: mIoU 39.9 % and 77.5 % of the pixels on its 101
validation images at 480x360, in 97 seconds of one core. The 60 epochs, about 16 minutes of one core, are not measured.
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
