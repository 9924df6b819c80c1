"""Train on your own folder of images, from weights that were trained on others.

Source: ours; gentle steps for few images.
Command: overtone train finetune DIR --model.weights hbonet_x100.dli14_in1k
or:      overtone train finetune DIR --model.weights RUN
or:      overtone train finetune DIR --model.name resnet18.a1_in1k
The weights are published ones (`overtone weights list`), those of a run folder, of any checkpoint file, of a repository
of the Hugging Face Hub (hf-hub:owner/name), or of a tag of timm in the name. Network and preprocessing are then those
of the weights, unless options override them; the head is initialised anew when the number of classes differs. With
very few images: --model.freeze trains the head alone.
Published result: none.
Ours: not measured.
Deviations: not applicable.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

NEEDS_WEIGHTS = True

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
        ),
        val_fraction=0.2,
        split_seed=0,
    ),
    augment=Augment(crop="random_resized", scale=(0.35, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.5),
    optim=Optim(
        name="sgd", lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4, decay="no_norm_bias", clip_grad=5.0
    ),
    schedule=Schedule(name="cosine", min_lr=0.0, warmup_epochs=1),
    train=Train(epochs=15, batch_size=64, label_smoothing=0.1),
)
