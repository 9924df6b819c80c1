"""What a checkpoint costs a training: how long the steps wait, and how much slower they are while it is written.

    python benchmarks/checkpoint_cost.py --model hbonet_x100 --batch-size 32 --device cuda

A training step on random images, with SGD and a moving average of the weights. `waits` is the time for which a step
waits while the tensors are copied; hashing, writing and flushing happen beside the steps. Each figure is a median.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import timm
import torch

import overtone
from overtone.checkpoint import Manifest
from overtone.config import Optim, Preprocess, Run
from overtone.data.pipeline import Batch
from overtone.engine.optim import build_optimizer, moving_average
from overtone.engine.placement import place
from overtone.engine.saver import Saver
from overtone.engine.state import State
from overtone.engine.step import Trainer
from overtone.tasks.classification.task import Classification
from overtone.tasks.task import Setup


def measured(name: str, batch_size: int, device: str, steps: int, saves: int, folder: Path) -> dict[str, float]:
    """Times in seconds, and the size of the file in bytes."""
    classes = tuple(str(number) for number in range(1000))
    placement = place(Run(device=device, precision="float32"))
    network = placement.model(timm.create_model(name, num_classes=len(classes)))
    average = moving_average(network, 0.999)
    optimizer = build_optimizer(network, Optim(lr=1e-4))
    trainer = Trainer(
        network,
        Classification(Setup(classes)),
        optimizer,
        lr_at=lambda step: 1e-4,
        placement=placement,
        average=average,
    )
    images = torch.randn(batch_size, 3, 224, 224)
    batch = Batch(images, torch.randint(1000, (batch_size,)), torch.arange(batch_size), ())
    saver = Saver(folder, Manifest(name, classes, Preprocess()))
    state = State()

    def step() -> float:
        started = time.perf_counter()
        trainer.step(batch, state.step)
        trainer.loss_sum()  # waits for the device
        state.step += 1
        return time.perf_counter() - started

    trainer.start()
    for _ in range(3):
        step()
    plain: list[float] = []
    waits: list[float] = []
    beside: list[float] = []
    written: list[float] = []
    for _ in range(saves):
        plain += [step() for _ in range(steps)]
        started = time.perf_counter()
        saver.save(trainer, state, {})
        waits.append(time.perf_counter() - started)
        while saver.is_writing:
            beside.append(step())
        saver.close()
        written.append(time.perf_counter() - started)
    return {
        "step": statistics.median(plain),
        "waits": statistics.median(waits),
        "beside": statistics.median(beside) if beside else float("nan"),
        "written": statistics.median(written),
        "bytes": (folder / "last.safetensors").stat().st_size,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hbonet_x100", help="any architecture of `overtone models`")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=3, help="steps between two checkpoints")
    parser.add_argument("--saves", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(chosen.model, chosen.batch_size, chosen.device, chosen.steps, chosen.saves, Path(folder))
    step, waits, lost = found["step"], found["waits"], found["waits"] + found["written"] * _slower(found)
    print(
        f"overtone {overtone.__version__}, PyTorch {torch.__version__}, {chosen.device}, "
        f"{torch.get_num_threads()} threads"
    )
    print(f"{chosen.model}, batches of {chosen.batch_size}: a checkpoint of {found['bytes'] / 2**20:.1f} MiB")
    print(f"step                 {1e3 * step:8.1f} ms")
    print(f"waits                {1e3 * waits:8.1f} ms, {waits / step:.3f} steps")
    print(f"written within       {1e3 * found['written']:8.1f} ms; a step meanwhile {1e3 * found['beside']:.1f} ms")
    print(f"every ten minutes    {100 * lost / 600:8.4f} % of the time")


def _slower(found: dict[str, float]) -> float:
    """Share of the time lost while a checkpoint is written; 0 where no step fitted in."""
    return max(1 - found["step"] / found["beside"], 0.0) if found["beside"] > 0 else 0.0


if __name__ == "__main__":
    main()
