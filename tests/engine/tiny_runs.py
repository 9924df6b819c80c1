"""A recipe with everything on that draws at random, runs of it that take a second, and what must be the same of two."""

import json

import torch

from overtone.checkpoint import read_checkpoint
from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Run, Schedule, Train
from overtone.engine import folder as files


def recipe_for(root, **train_options):
    return Recipe(
        model=Model(name="hbonet_x010"),
        data=Data(root=root, preprocess=Preprocess(size=12, resize="squash", crop_fraction=1.0)),
        augment=Augment(crop="pad", mixup=0.4, cutmix=1.0, mix_prob=0.5, random_erasing=0.5),
        optim=Optim(lr=0.05, decay="no_norm_bias", clip_grad=5.0),
        schedule=Schedule(warmup_epochs=1),
        train=Train(**({"epochs": 4, "batch_size": 8, "label_smoothing": 0.1, "ema_decay": 0.8} | train_options)),
    )


def run_for(folder, **options):
    quiet = {"device": "cpu", "workers": 0, "tensorboard": False, "plots": False}
    return Run(out=folder, **(quiet | options))


def rows_of(folder):
    return [json.loads(line) for line in (folder / files.METRICS).read_text().splitlines()]


def assert_same_end(first, second):
    one, two = read_checkpoint(first / files.LAST), read_checkpoint(second / files.LAST)
    assert one.weights.keys() == two.weights.keys() and one.training.keys() == two.training.keys()
    assert all(torch.equal(one.weights[key], two.weights[key]) for key in one.weights)
    assert all(torch.equal(one.training[key], two.training[key]) for key in one.training)
    for key in ("epoch", "step", "lr", "train_loss", "val_loss", "top1"):
        assert [row[key] for row in rows_of(first)] == [row[key] for row in rows_of(second)], key
