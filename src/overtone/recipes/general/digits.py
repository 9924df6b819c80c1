"""Handwritten digits of the demo: ten classes, three minutes on two CPU cores.

Source: ours, for scikit-learn's bundled digits (1,797 images of 8x8 pixels) as `overtone demo` writes them.
Command: overtone demo, or overtone train digits --data.root demo/images
Published result: none.
Ours: not measured.
Deviations: not applicable.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

RECIPE = Recipe(
    model=Model(name="hbonet_x035"),
    data=Data(
        preprocess=Preprocess(
            size=48,
            resize="squash",
            crop_fraction=1.0,
            interpolation="bilinear",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        )
    ),
    augment=Augment(crop="pad", pad_mode="constant", hflip=0.0),
    optim=Optim(
        name="sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4, decay="no_norm_bias", clip_grad=5.0
    ),
    schedule=Schedule(name="cosine", min_lr=0.0, warmup_epochs=2),
    train=Train(epochs=25, batch_size=64, label_smoothing=0.1),
)
