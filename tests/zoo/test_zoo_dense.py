"""Networks with dense heads through the resolver: bare published files, names, and what is refused."""

from pathlib import Path

import pytest
import torch

from overtone import zoo
from overtone.engine.inference import recipe_of
from overtone.errors import OvertoneError
from overtone.heads import Segmenter, create_segmenter
from overtone.tasks.segmentation.settings import SegmentationSettings


def saved(network: Segmenter, path: Path) -> Path:
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"meta": {"CLASSES": ("a",), "iter": 7}, "state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def small() -> Segmenter:
    torch.manual_seed(0)
    return create_segmenter(
        "upernet_hornet_tiny_7x7",
        5,
        backbone_args={"base_dim": 8, "depths": (1, 1, 1, 1)},
        head_args={"channels": 8},
    ).eval()


def test_a_bare_published_file_is_recognised_and_loaded_whole(small, tmp_path):
    loaded = zoo.load_model(str(saved(small, tmp_path / "a.pth")))
    assert (loaded.task, loaded.layout) == ("segmentation", "state_dict+module")
    assert loaded.labels is not None and len(loaded.labels) == 5
    images = torch.randn(1, 3, 64, 70)
    with torch.no_grad():
        assert torch.equal(loaded.model(images), small(images))


def test_a_file_with_a_missing_tensor_or_other_classes_is_refused(small, tmp_path):
    path = saved(small, tmp_path / "a.pth")
    with pytest.raises(OvertoneError, match="train anew"):
        zoo.load_model(str(path), num_classes=3)
    state = torch.load(path, weights_only=True)
    del state["state_dict"]["module.decode_head.bottleneck.bn.bias"]
    torch.save(state, path)
    with pytest.raises(OvertoneError, match=r"decode_head\.bottleneck\.bn\.bias"):
        zoo.load_model(str(path))


@pytest.mark.slow
def test_a_published_network_is_evaluated_by_its_recipe(tmp_path):
    path = saved(create_segmenter("upernet_hornet_tiny_7x7"), tmp_path / "a.pth")
    loaded = zoo.load_model(str(path))
    assert loaded.architecture == "upernet_hornet_tiny_7x7"
    assert loaded.labels is not None and (len(loaded.labels), loaded.labels[0]) == (150, "wall")
    settings = recipe_of(loaded, loaded.preprocess).settings
    assert isinstance(settings, SegmentationSettings)
    assert (settings.inference, settings.window, settings.stride) == ("slide", 512, 341)
    assert settings.scale == (2048, 512) and loaded.preprocess.exif == "apply"


def test_names_give_untrained_networks():
    loaded = zoo.load_model("lraspp_hbonet_x010", num_classes=4)
    assert not loaded.trained and loaded.task == "segmentation"
    assert loaded.labels == ("class 0", "class 1", "class 2", "class 3")
    with pytest.raises(OvertoneError, match="file"):
        zoo.load_model("upernet_hornet_tiny_7x7.rao_ade20k")
