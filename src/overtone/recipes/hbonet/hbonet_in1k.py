"""HBONet on ImageNet-1K: 300 epochs of SGD with a cosine schedule.

Source: the training settings of d-li14/HBONet (Li, Zhou, Yao, ICCV 2019, arXiv:1908.03888).
Command: overtone train hbonet_in1k --data.root IMAGENET
Any width, rate and resolution by the same command:
    overtone train hbonet_in1k --data.root IMAGENET --model.name hbonet_x035 --data.preprocess.size 192
    overtone train hbonet_in1k --data.root IMAGENET --model.name hbonet_x025_4x
    overtone train hbonet_in1k --data.root IMAGENET --model.args width_mult=0.7 rates=4x divisor=8
The last form is for what has no name of its own; rates are 2x, 4x and 8x.
Published result: hbonet_x100 at 224 pixels: top-1 73.1 %, top-5 91.0 %.
Ours: not measured.
Deviations: the published list of settings says 300 epochs and the published command 150; this is the list's. The
command's is --train.epochs 150. Weight decay is on every parameter, biases and batch norms included, as published.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

RECIPE = Recipe(
    model=Model(name="hbonet_x100"),
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
    train=Train(epochs=300, batch_size=256),
)
