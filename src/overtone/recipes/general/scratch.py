"""Train on your own folder of images, from random weights.

Source: ours, chosen by measurement: docs/recipes.md.
Command: overtone train scratch DIR --train.minutes 10
The folder holds train/ and val/ of class folders, or the class folders themselves (a stratified, seeded fifth is then
held out). Without --train.minutes it is 30 epochs. The size of the input follows the images' own, up to 128 pixels, and
the augmentation the number of epochs. Any network: --model.name, see `overtone models`. Images whose mirror image means
something else (digits, text): --augment.hflip 0. With few images and trained weights at hand: recipe finetune.
Published result: none.
Ours: see docs/recipes.md.
Deviations: not applicable.
"""

from overtone.config import AUTO, Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

RECIPE = Recipe(
    model=Model(name="resnet10t"),
    data=Data(
        preprocess=Preprocess(
            size=AUTO,
            resize="shorter",
            crop_fraction=0.875,
            interpolation="bilinear",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        val_fraction=0.2,
        split_seed=0,
    ),
    augment=Augment(strength="auto", crop="random_resized", ratio=(3 / 4, 4 / 3), hflip=0.5),
    optim=Optim(name="muon", lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, decay="no_norm_bias"),
    schedule=Schedule(name="cosine", min_lr=0.0, warmup_epochs=0.5),
    train=Train(epochs=30, batch_size=128, label_smoothing=0.1),
)
