"""A network and a folder of images small enough for a training to take a second."""

import pytest
import torch
from tiny_training import Tiny, draw

from overtone import zoo


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return Tiny()


@pytest.fixture
def tiny_from_zoo(monkeypatch):
    """Every recipe trains a `Tiny`."""

    def build(task, settings, labels, say=None):
        model = Tiny(len(labels))
        if settings.freeze:
            for part in (model.conv, model.bn):
                part.requires_grad_(False)
        return model

    monkeypatch.setattr(zoo, "build_for_training", build)


@pytest.fixture
def images(tmp_path):
    """A folder with 26 training and 9 validation images of three classes."""
    draw(tmp_path / "data" / "train", {"blue": 8, "green": 9, "red": 9})
    draw(tmp_path / "data" / "val", {"blue": 3, "green": 3, "red": 3}, seed=1)
    return tmp_path / "data"
