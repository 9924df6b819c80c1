"""Small nets of every family with deterministic weights, and files of them in every layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fill import fill_value
from safetensors.torch import save_file
from torch import Tensor, nn

import overtone

HORNET = {"depths": (1, 1, 2, 1), "base_dim": 16, "filter_size": 64}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "mobilenetv2": ("mobilenetv2_x010", {}),
    "hbonet": ("hbonet_x010", {}),
    "harm_wrn": ("harm_wrn16_4", {"depth": 10, "width": 1, "level": 3}),
    "harm_resnet": ("harm_resnet18", {"num_classes": 7}),
    "hornet_7x7": ("hornet_tiny_7x7", HORNET | {"num_classes": 10}),
    "hornet_gf": ("hornet_tiny_gf", HORNET | {"num_classes": 10}),
}


def filled(name: str, **more: Any) -> nn.Module:
    """One of `SMALL`, or any architecture, with numbers that are a function of the published keys alone."""
    architecture, args = SMALL.get(name, (name, {}))
    with torch.device("meta"):
        model = overtone.create_model(architecture, **(args | more))
    model = model.to_empty(device="cpu").eval()
    state = {}
    for key, value in model.published_state_dict().items():
        number = fill_value(key, tuple(value.shape))
        state[key] = torch.tensor(3) if number is None else torch.from_numpy(number).float()
    model.load_state_dict(state, strict=True)
    return model


def openmmlab(state: dict[str, Tensor]) -> dict[str, Any]:
    """A HorNet under the keys of OpenMMLab's copies."""
    renamed = {}
    for key, value in state.items():
        if key.startswith("head."):
            renamed[key.replace("head.", "head.fc.")] = value
            continue
        key = key.replace(".gnconv.pws.", ".gnconv.projs.")
        key = "norm3." + key.removeprefix("norm.") if key.startswith("norm.") else key
        renamed["backbone." + (f"{key}.weight" if key.endswith(("gamma1", "gamma2")) else key)] = value
    return {"meta": {"mmcls_version": "0.23.2", "CLASSES": ["a"] * 3}, "state_dict": renamed}


def prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{key}": value for key, value in state.items()}


def noise(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value + 1 for key, value in state.items()}


# Every layout of the published and the training checkpoints, and the name that it goes by.
LAYOUTS: dict[str, tuple[str, Callable[[dict[str, Tensor]], Any]]] = {
    "bare": ("bare", lambda state: state),
    "module": ("bare+module", prefixed),
    "model": ("model", lambda state: {"model": state}),
    "mobile and harmonic training": (
        "state_dict+module",
        lambda state: {
            "epoch": 42,
            "arch": "net",
            "state_dict": prefixed(state),
            "best_prec1": torch.tensor(71.5),
            "optimizer": {
                "state": {0: {"momentum_buffer": torch.ones(3)}},
                "param_groups": [{"lr": 0.1, "params": [0]}],
            },
        },
    ),
    "best_acc1": ("state_dict+module", lambda state: {"state_dict": prefixed(state), "epoch": 1, "best_acc1": 71.5}),
    "hornet training": (
        "model",
        lambda state: {
            "model": state,
            "model_ema": noise(state),
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
            "epoch": 299,
            "scaler": {"scale": 65536.0},
        },
    ),
    "wide resnet training": ("params", lambda state: {"params": state, "epoch": 7, "optimizer": {}}),
    "compiled": ("bare+_orig_mod", lambda state: {f"_orig_mod.{key}": value for key, value in state.items()}),
}


def write(path: Path, values: Any, legacy: bool = False) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in values.items()}, path)
    else:
        torch.save(values, path, _use_new_zipfile_serialization=not legacy)
    return path


def identical(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(
        one[key].shape == other[key].shape and torch.equal(one[key], other[key]) for key in one
    )
