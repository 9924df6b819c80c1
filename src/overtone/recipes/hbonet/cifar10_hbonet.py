"""HBONet on CIFAR-10's training images, in minutes on two CPU cores.

Source: ours, there is no published setting of HBONet for CIFAR-10.
Command: overtone train cifar10_hbonet --data.root CIFAR10 --run.threads 1 --run.workers 1
The folder holds the 50,000 training images as PNG or JPEG in ten class folders; a stratified, seeded tenth of them is
held out and measured on.
Published result: none.
Ours: 75.04 % top-1 on the 5,000 held-out images after 7 of the 9 epochs, where the run was stopped; 85 to 91 s
an epoch, 506 to 541 images/s (two CPU cores, November 2026). The aim of 80 % within 15 minutes is not
shown to be reached.
Deviations: not applicable.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

RECIPE = Recipe(
    model=Model(name="hbonet_x035"),
    data=Data(
        preprocess=Preprocess(
            size=56,
            resize="squash",
            crop_fraction=1.0,
            interpolation="bilinear",
            mean=(0.491, 0.482, 0.447),
            std=(0.247, 0.244, 0.262),
        ),
        val_fraction=0.1,
        split_seed=0,
    ),
    augment=Augment(crop="none", hflip=0.5),
    optim=Optim(name="sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, decay="no_norm_bias"),
    schedule=Schedule(name="cosine", min_lr=0.0, warmup_epochs=0.5),
    train=Train(epochs=9, batch_size=64, label_smoothing=0.1),
)
