"""Harmonic ResNet on ImageNet-1K: 100 epochs of SGD, learning rate a tenth every 30.

Source: the training settings of matej-ulicny/harmonic-networks (Ulicny, Krylov, Dahyot, arXiv:2001.06570).
Command: overtone train harm_resnet_in1k --data.root IMAGENET
Progressive lambda with average pooling, the published example (--harm_root --harm_res_blocks --levels None None 3 2
--pool avg): --model.name harm_resnet50_progressive. Other depths and baselines: harm_resnet101, harm1_resnet50,
harm0_resnet50. Any lambda and pool, without a name of their own:
    overtone train harm_resnet_in1k --data.root IMAGENET --model.args pool=max levels=None,3,3,2
Further arguments are depth (18, 34, 50, 101, 152), harm_root and harm_res_blocks (true, false).
Published result: top-1 / top-5 at 224 pixels: harm_resnet50 76.89 / 93.37 %, harm_resnet50_progressive 76.88 / 93.39 %,
harm1_resnet50 77.03 / 93.52 %, harm0_resnet50 76.19 / 93.02 %, harm_resnet101 78.52 / 94.25 %.
Ours: not measured.
Deviations: none known.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

RECIPE = Recipe(
    model=Model(name="harm_resnet50"),
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
    optim=Optim(name="sgd", lr=0.1, momentum=0.9, nesterov=False, weight_decay=1e-4, decay="all"),
    schedule=Schedule(name="step", step_epochs=30, gamma=0.1, warmup_epochs=0),
    train=Train(epochs=100, batch_size=256),
)
