"""HorNet-S (7x7) on ImageNet-1K: 300 epochs of AdamW with mixup, cutmix and RandAugment.

Source: the training settings of raoyongming/HorNet (Rao et al., NeurIPS 2022, arXiv:2207.14284).
Command: overtone train hornet_small_7x7_in1k --data.root IMAGENET
Published result: top-1 83.8 % at 224 pixels (4 nodes of 8 GPUs of 128 images in 2 parts).
Ours: not measured.
Deviations: none known. Colour jitter of 0.4 is listed and has no effect: RandAugment takes its place.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

RECIPE = Recipe(
    model=Model(name="hornet_small_7x7", drop_path_rate=0.4),  # layer scale 1e-6 is the network's own
    data=Data(
        preprocess=Preprocess(
            size=224,
            resize="shorter",
            crop_fraction=0.875,
            interpolation="bicubic",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
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
        weight_decay=0.05,
        decay="no_norm_bias",
        clip_grad=5.0,
    ),
    schedule=Schedule(name="cosine", min_lr=1e-6, warmup_epochs=20, warmup_lr=0.0),
    train=Train(epochs=300, batch_size=4096, label_smoothing=0.1, ema_decay=0.9999),
)
