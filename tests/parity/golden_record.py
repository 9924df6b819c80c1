"""The recorded outputs of the original networks (tests/parity/golden) and our networks filled with the same numbers.

One network is `NAME.json` + `NAME.npz`, computed in float64 on the CPU. The json holds how the net is built, the published
state-dict keys with their shapes in order, trainable parameters, multiply-adds of convolutions and linears in the
published form, and one step in training mode: mean cross entropy, the L2 norm of each gradient, and [mean, unbiased std]
of each running statistic afterwards. The npz holds eval-mode logits by input size. See fill.py for the numbers.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fill import fill_value, image_batch
from torch import Tensor, nn
from torch.nn import functional as F

import overtone

FOLDER = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
FLOOR = 1e-9


@dataclass(frozen=True)
class Record:
    """One golden record."""

    name: str
    values: dict[str, Any]
    logits: dict[str, np.ndarray]

    @property
    def state(self) -> list[tuple[str, tuple[int, ...]]]:
        """Published keys and shapes, in the published order."""
        return [(key, tuple(shape)) for key, shape in self.values["state"]]

    @property
    def loose(self) -> bool:
        """Whether a global filter, which works in float32, is in the net."""
        return self.values["spec"].get("filter") == "gf"

    def training(self) -> tuple[int, float, dict[str, float], dict[str, list[float]], list[int]] | None:
        """Size, loss, gradient norms, running statistics and targets of the training step, if it was recorded."""
        for size, last_target in ((64, 999), (32, 9)):
            if f"train_loss_{size}" in self.values:
                buffers = self.values.get(f"buffers_after_{size}", {})
                return (
                    size,
                    self.values[f"train_loss_{size}"],
                    self.values[f"grad_norm_{size}"],
                    buffers,
                    [1, 2, 3, last_target],
                )
        return None


def read_record(name: str) -> Record:
    values = json.loads((FOLDER / f"{name}.json").read_text())
    with np.load(FOLDER / f"{name}.npz") as arrays:
        logits = {key.removeprefix("logits_"): arrays[key] for key in arrays if key.startswith("logits_")}
    return Record(name, values, logits)


def build(record: Record) -> nn.Module:
    """Our network for a record, by name."""
    return overtone.create_model(architecture(record))


def architecture(record: Record) -> str:
    spec = record.values["spec"]
    family = spec["family"]
    if family == "mobilenetv2":
        return f"mobilenetv2_x{round(spec['width_mult'] * 100):03d}"
    if family == "hbonet":
        rates = "" if spec["rates"] == "2x" else f"_{spec['rates']}"
        return f"hbonet_x{round(spec['width_mult'] * 100):03d}{rates}"
    if family == "hornet":
        return f"hornet_{spec['size']}_{spec['filter']}"
    prefix = {("harmonic", "harmonic"): "harm", ("harmonic", "plain"): "harm1"}[spec["root"], spec["blocks"]]
    if spec.get("net") == "wrn":
        return f"{prefix}_wrn{spec['depth']}_{spec['width']}"
    if "net" in spec:
        return f"{prefix}_{spec['net']}"
    suffix = "_progressive" if any(spec["levels"]) else {None: "", "avg": "_avgpool", "max": "_maxpool"}[spec["pool"]]
    return f"{prefix}_resnet{spec['depth']}{suffix}"


def published_state(record: Record) -> dict[str, Tensor]:
    """The published state dict filled with the deterministic numbers."""
    filled = {key: fill_value(key, shape) for key, shape in record.state}
    return {key: torch.tensor(0) if value is None else torch.from_numpy(value) for key, value in filled.items()}


def filled_model(record: Record, state: dict[str, Tensor]) -> nn.Module:
    """Our network in float64 with the published state, loaded strictly."""
    with torch.device("meta"):  # no time for an initialisation that is replaced
        model = build(record)
    model = model.double().to_empty(device="cpu")
    model.load_state_dict(state, strict=True)
    return model


def training_step(record: Record, model: nn.Module) -> tuple[float, dict[str, float], dict[str, list[float]]]:
    """Loss, gradient norm by published key, [mean, std] by published buffer after one step in training mode."""
    step = record.training()
    assert step is not None
    size, _, _, _, targets = step
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images = torch.from_numpy(image_batch(f"{record.name}:train", 4, size, size))
    loss = F.cross_entropy(model(images), torch.tensor(targets))
    loss.backward()
    after = model.published_state_dict()
    buffers = {
        key: [value.mean().item(), value.std().item()]
        for key, value in after.items()
        if key.endswith(("running_mean", "running_var"))
    }
    with torch.no_grad():  # the gradients under their published keys: published as if they were the weights
        for parameter in model.parameters():
            parameter.copy_(parameter.grad)
    gradients = {key: value.double().norm().item() for key, value in model.published_state_dict().items()}
    return loss.item(), gradients, buffers
