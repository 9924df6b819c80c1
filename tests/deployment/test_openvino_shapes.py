"""Sizes in OpenVINO's files: open ones cost speed."""

import importlib
from pathlib import Path

import pytest
import torch

from overtone import create_model, deploy
from overtone.deployment.runtimes.openvino_runtime import OpenVino
from overtone.deployment.runtimes.runtime import Job

pytestmark = pytest.mark.skipif(OpenVino().missing() is not None, reason="no OpenVINO")


@pytest.mark.parametrize(("dynamic", "batch"), [(False, "2"), (True, "?")])
def test_only_what_was_asked_for_is_open(tmp_path: Path, dynamic: bool, batch: str) -> None:
    net = deploy(create_model("hbonet_x010"), 32)
    OpenVino().write(Job(net, torch.zeros(2, 3, 32, 32), "normalised", "float32", dynamic), tmp_path)
    OpenVino().import_library()  # without its telemetry
    found = importlib.import_module("openvino").Core().read_model(tmp_path / "model.xml")
    assert str(found.inputs[0].get_partial_shape()) == f"[{batch},3,32,32]"
