"""Your own images with any number of labels each, from a table.

Source: ours; the scratch recipe with binary cross entropy.
Command: overtone train multilabel --data.table labels.csv
The table (CSV or Parquet) has a column of image paths relative to it (or to --data.root), and a column of 0 and 1 for
each label or one column `labels` of lists such as cat|dog; a column `split` may say train, val or test. A threshold for
each label is chosen on the validation images and kept with the weights. Trained weights help: --model.weights.
Published result: none.
Ours: not measured.
Deviations: not applicable.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train
from overtone.tasks.multilabel.settings import MultilabelSettings

RECIPE = Recipe(
    task="multilabel",
    settings=MultilabelSettings(loss="bce"),
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
    augment=Augment(crop="random_resized", scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.5, color_jitter=0.2),
    optim=Optim(name="adamw", lr=2e-3, weight_decay=0.05, decay="no_norm_bias", clip_grad=5.0),
    schedule=Schedule(name="cosine", min_lr=0.0, warmup_epochs=2),
    train=Train(epochs=50, batch_size=64),
)
