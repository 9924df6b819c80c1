"""Train on your own folder of images, from weights that were trained on others.

Source: ours, chosen by measurement: docs/recipes.md.
Command: overtone train finetune DIR --model.weights hbonet_x100.dli14_in1k
or:      overtone train finetune DIR --model.weights RUN
or:      overtone train finetune DIR --model.name resnet18.a1_in1k
The weights are published ones (`overtone weights list`), those of a run folder, of any checkpoint file, of a repository
of the Hugging Face Hub (hf-hub:owner/name), or of a tag of timm in the name. Network and preprocessing are then those
of the weights, unless options override them; the head is initialised anew when the number of classes differs. It is 15
epochs, or as many as fit into --train.minutes; the augmentation follows their number. Batch norm keeps the statistics
of the weights where a batch has fewer than 16 images. --model.freeze trains the head alone.
Published result: none.
Ours: see docs/recipes.md.
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
    augment=Augment(strength="auto", crop="random_resized", ratio=(3 / 4, 4 / 3), hflip=0.5),
    optim=Optim(name="muon", lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4, decay="no_norm_bias"),
    schedule=Schedule(name="cosine", min_lr=0.0, warmup_epochs=0.5),
    train=Train(epochs=15, batch_size=64, label_smoothing=0.1, freeze_bn="auto"),
)
