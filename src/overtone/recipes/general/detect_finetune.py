"""Your own images with boxes, starting from a trained classifier or detector of the same backbone.

Source: ours; gentle steps for few images.
Command: overtone train detect_finetune --data.root FOLDER --model.weights RUN
FOLDER has COCO's JSON, VOC's Annotations/ and JPEGImages/, or YOLO's data.yaml; or give a table of boxes as
--data.table. See docs/detection.md. RUN is a run folder, a checkpoint file, or published weights of the backbone.
Published result: none.
Ours: BCCD as in recipe detect, from a classifier that had seen 600 images of CIFAR-10 at 48 pixels, with --train.epochs
8: AP50 by epoch 3, 47, 56, 60, 61, 65, 65, 67 %, AP 39.7 %, in 3 min 25 s on two cores of an EPYC (21 November 2026).
Recipe detect, which takes more steps, comes further from nothing: a start as weak as this helps little. The 20 epochs
were not run.
Deviations: not applicable.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train
from overtone.tasks.detection.settings import DetectionSettings

NEEDS_WEIGHTS = True

RECIPE = Recipe(
    task="detection",
    settings=DetectionSettings(longest=320, jitter=(0.8, 1.1), score="ap50"),
    model=Model(name="resnet10t", head="fcos", args={"head_args": {"width": 64}}),
    data=Data(
        preprocess=Preprocess(
            size=240,
            resize="shorter",
            crop_fraction=1.0,
            interpolation="bilinear",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        val_fraction=0.2,
        split_seed=0,
    ),
    augment=Augment(crop="none", hflip=0.5, color_jitter=0.2),
    optim=Optim(name="adamw", lr=5e-4, weight_decay=0.05, decay="no_norm_bias", clip_grad=10.0),
    schedule=Schedule(name="cosine", min_lr=0.0, warmup_epochs=2),
    train=Train(epochs=20, batch_size=8),
)
