"""HorNet-L (GF) on ImageNet-22K: 90 epochs of AdamW without evaluation.

Source: the training settings of raoyongming/HorNet (Rao et al., NeurIPS 2022, arXiv:2207.14284).
Command: overtone train hornet_large_gf_in22k --data.root IMAGENET22K
The folder holds the class folders themselves (the published network has 10,459 classes); nothing is held out and
nothing evaluated, and the last epoch counts as the best. With a val/ beside train/, that is evaluated on after every
epoch.
Then: hornet_large_gf_ft384.
Published result: none, it is where fine-tuning starts (8 nodes of 8 GPUs of 64 images in 2 parts).
Ours: not measured.
Deviations: none known. What the published settings of this network do not mention is that of the ImageNet-1K ones:
learning rate, augmentation, mixing, label smoothing, moving average.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

RECIPE = Recipe(
    model=Model(name="hornet_large_gf", drop_path_rate=0.2),  # layer scale 1e-6 is the network's own
    data=Data(
        preprocess=Preprocess(
            size=224,
            resize="shorter",
            crop_fraction=0.875,
            interpolation="bicubic",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        val_fraction=0.0,
    ),
    augment=Augment(
        crop="random_resized",
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        hflip=0.5,
        color_jitter=0.4,
        rand_augment="rand-m9-mstd0.5-inc1",
        random_erasing=0.25,
        mixup=0.8,
        cutmix=1.0,
        mix_prob=1.0,
        mix_switch_prob=0.5,
    ),
    optim=Optim(
        name="adamw",
        lr=4e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.1,
        decay="no_norm_bias",
        clip_grad=1.0,
    ),
    schedule=Schedule(name="cosine", min_lr=1e-6, warmup_epochs=5, warmup_lr=0.0),
    train=Train(epochs=90, batch_size=4096, label_smoothing=0.1, ema_decay=0.9999),
)
