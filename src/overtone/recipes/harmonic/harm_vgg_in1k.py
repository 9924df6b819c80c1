"""Harmonic VGG on ImageNet-1K: 100 epochs of SGD, learning rate a tenth every 30.

Source: the training settings of matej-ulicny/harmonic-networks (Ulicny, Krylov, Dahyot, arXiv:2001.06570).
Command: overtone train harm_vgg_in1k --data.root IMAGENET
Other depths and the plain baseline: --model.name harm_vgg11_bn, harm_vgg19, harm0_vgg16_bn. Dropout of 0.5 is the
network's own.
Published result: top-1 / top-5 at 224 pixels: harm_vgg16_bn 74.45 / 91.99 %, harm0_vgg16_bn 73.67 / 91.74 %.
Ours: not measured.
Deviations: no learning rate is published for VGG; 0.01 is the customary one.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

RECIPE = Recipe(
    model=Model(name="harm_vgg16_bn"),
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
    optim=Optim(name="sgd", lr=0.01, momentum=0.9, nesterov=False, weight_decay=1e-4, decay="all"),
    schedule=Schedule(name="step", step_epochs=30, gamma=0.1, warmup_epochs=0),
    train=Train(epochs=100, batch_size=256),
)
