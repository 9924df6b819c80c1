"""MobileNetV2 on ImageNet-1K: 150 epochs of SGD with a cosine schedule.

Source: the training settings of d-li14/mobilenetv2.pytorch (Sandler et al. 2018, arXiv:1801.04381).
Command: overtone train mobilenetv2_in1k --data.root IMAGENET
Other widths and resolutions: --model.name mobilenetv2_x050, --data.preprocess.size 192.
Published result: mobilenetv2_x100 at 224 pixels: top-1 72.192 %, top-5 90.534 %.
Ours: not measured.
Deviations: none known. Weight decay is on every parameter, biases and batch norms included, as published.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

RECIPE = Recipe(
    model=Model(name="mobilenetv2_x100"),
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
    optim=Optim(name="sgd", lr=0.05, momentum=0.9, nesterov=False, weight_decay=4e-5, decay="all"),
    schedule=Schedule(name="cosine", min_lr=0.0, warmup_epochs=0),
    train=Train(epochs=150, batch_size=256),
)
