"""Harmonic WRN-28-10 on CIFAR-100: 200 epochs of SGD, learning rate a fifth at epochs 60, 120 and 160.

Source: the CIFAR settings of matej-ulicny/harmonic-networks (Ulicny, Krylov, Dahyot, arXiv:2001.06570), which are those
of Wide Residual Networks (Zagoruyko and Komodakis, arXiv:1605.07146).
Command: overtone train harm_wrn_cifar100 --data.root CIFAR100
The folder holds train/ and test/ of a hundred class folders, or the training images alone in these. A stratified,
seeded tenth of them is held out; with --data.validate-on test none is. Dropout of 0.3 is inside every block. Fewer DCT
filters: --model.name harm_wrn28_10_level3 or harm_wrn28_10_level2. Smaller: --model.name harm_wrn16_4.
Published result: none known to us.
Ours: not measured.
Deviations: the published runs train on all 50,000 images, as this one does with --data.validate-on test. The epoch
with the best validation score is kept; the figures of the last one are in metrics.jsonl.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

RECIPE = Recipe(
    model=Model(name="harm_wrn28_10", drop_rate=0.3),
    data=Data(
        preprocess=Preprocess(
            size=32,
            resize="squash",
            crop_fraction=1.0,
            interpolation="bilinear",
            mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
            std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
        ),
        val_fraction=0.1,
        split_seed=0,
    ),
    augment=Augment(crop="pad", pad_mode="reflect", hflip=0.5),
    optim=Optim(name="sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, decay="all"),
    schedule=Schedule(name="multistep", milestones=(60, 120, 160), gamma=0.2, warmup_epochs=0),
    train=Train(epochs=200, batch_size=128),
)
