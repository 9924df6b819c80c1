"""MobileNetV2 on ImageNet-1K, the stronger settings: 250 epochs of SGD at batch 1024, with dropout and warm-up.

Source: what d-li14/mobilenetv2.pytorch (Sandler et al. 2018, arXiv:1801.04381) says of its best checkpoint, trained on
8 GPUs; the training script released there cannot run these settings (no dropout, no split of weight decay, warm-up from
0 only).
Command: overtone train mobilenetv2_strong_in1k --data.root IMAGENET
Published result: mobilenetv2_x100 at 224 pixels: top-1 72.834 %, top-5 91.06 %.
Ours: not measured.
Deviations: none known.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

RECIPE = Recipe(
    model=Model(name="mobilenetv2_x100", drop_rate=0.2),
    data=Data(
        preprocess=Preprocess(
            size=224,
            resize="shorter",
            crop_fraction=0.875,
            interpolation="bilinear",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
    ),
    augment=Augment(crop="random_resized", scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.5),
    optim=Optim(name="sgd", lr=0.4, momentum=0.9, nesterov=False, weight_decay=4e-5, decay="no_norm_bias"),
    schedule=Schedule(name="cosine", min_lr=0.0, warmup_epochs=5, warmup_lr=0.1),
    train=Train(epochs=250, batch_size=1024),
)
