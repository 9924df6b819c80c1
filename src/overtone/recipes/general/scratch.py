"""Train on your own folder of images, from random weights.

Source: ours; a sound start for some thousands of images per class. With fewer, fine-tune: recipe finetune.
Command: overtone train scratch DIR
The folder holds train/ and val/ of class folders, or the class folders themselves (a stratified, seeded fifth is then
held out). Any network: --model.name, see `overtone models`. Small images: --data.preprocess.size 64. Images whose
mirror image means something else (digits, text): --augment.hflip 0.
Published result: none.
Ours: not measured.
Deviations: not applicable.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

RECIPE = Recipe(
    model=Model(name="hbonet_x050"),
    data=Data(
        preprocess=Preprocess(
            size=128,
            resize="shorter",
            crop_fraction=0.875,
            interpolation="bilinear",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        val_fraction=0.2,
        split_seed=0,
    ),
    augment=Augment(crop="random_resized", scale=(0.25, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.5, color_jitter=0.2),
    optim=Optim(
        name="sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4, decay="no_norm_bias", clip_grad=5.0
    ),
    schedule=Schedule(name="cosine", min_lr=0.0, warmup_epochs=2),
    train=Train(epochs=50, batch_size=64, label_smoothing=0.1),
)
