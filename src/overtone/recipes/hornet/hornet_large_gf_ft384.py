"""HorNet-L (GF) from ImageNet-22K to ImageNet-1K at 384 pixels: 30 epochs of AdamW with layer decay.

Source: the training settings of raoyongming/HorNet (Rao et al., NeurIPS 2022, arXiv:2207.14284).
Command: overtone train hornet_large_gf_ft384 --data.root IMAGENET
Starts from the published weights of ImageNet-22K; from your own: --model.weights RUN. Of their 10,459 outputs those
of the 1,000 classes, sorted by their WordNet ids, are kept (other numbers of classes get a new classifier); the
global filters, stored for 224 pixels, are resized to those of 384.
Published result: not among the published rows, which end with the weights of ImageNet-22K (4 nodes of 8 GPUs of 16
images).
Ours: not measured.
Deviations: none known. What the published settings of this fine-tuning do not mention is that of the ImageNet-1K ones:
lowest learning rate, augmentation, label smoothing. Evaluation squashes the whole image to 384 x 384, as published
from 384 pixels up.
"""

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Schedule, Train

RECIPE = Recipe(
    model=Model(name="hornet_large_gf_img384", weights="hornet_large_gf.rao_in22k", drop_path_rate=0.4),
    data=Data(
        preprocess=Preprocess(
            size=384,
            resize="squash",
            crop_fraction=1.0,
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
        mixup=0.0,
        cutmix=0.0,
    ),
    optim=Optim(
        name="adamw",
        lr=5e-5,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=1e-8,
        decay="no_norm_bias",
        layer_decay=0.7,
        clip_grad=1.0,
    ),
    schedule=Schedule(name="cosine", min_lr=1e-6, warmup_epochs=0),
    train=Train(epochs=30, batch_size=512, label_smoothing=0.1, ema_decay=0.9999),
)
