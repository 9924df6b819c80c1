"""HBONet on CIFAR-10's training images, in minutes on two CPU cores.

Source: ours, there is no published setting of HBONet for CIFAR-10.
Command: overtone train cifar10_hbonet --data.root CIFAR10
The folder holds the 50,000 training images as PNG or JPEG in ten class folders; a stratified, seeded tenth of them is
held out and measured on. Two processes share each batch (train.processes); images of 40 pixels and few epochs at full
width took less time to an accuracy than narrower networks or larger images did.
Published result: none.
Ours: 81.86 % top-1 on the 5,000 held-out images after 12 min 16 s in all (343 to 413 images/s; two CPU cores with other
jobs beside it, PyTorch 2.15, November 2026). 12 epochs with padded crops come to 82.9 %, 8 at 64 pixels to 83.5 %;
recipe scratch, a residual network, comes to 86.2 % in 11 minutes of two such cores (docs/recipes.md).
Deviations: not applicable.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

RECIPE = Recipe(
    model=Model(name="hbonet_x100"),
    data=Data(
        preprocess=Preprocess(
            size=40,
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
    optim=Optim(name="muon", lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, decay="no_norm_bias"),
    schedule=Schedule(name="cosine", min_lr=0.0, warmup_epochs=0.5),
    train=Train(epochs=6, batch_size=256, label_smoothing=0.1, processes=2),
)
