"""Where a detector's time goes: Cascade Mask R-CNN on HorNet-T against torchvision's Mask R-CNN on ResNet-50.

    python benchmarks/detection_stages.py --repeat 3 --threads 1

A training step of one image of 640x480 and the inference of one of 1333x800, taking turns; medians of processor time by
stage, and the process's peak of memory above what it held before. The networks are untrained: scores count from the one
that a thousand candidates reach, so that as many go through non-maximum suppression, and 100 get masks, as on COCO.
"""

import argparse
import ctypes
import gc
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

from overtone.heads.mask_rcnn import MaskRcnn, build_detector, total_loss

CANDIDATES, OBJECTS = 1000, 8
TRAIN, TEST = (480, 640), (800, 1333)
STAGES = ("backbone", "neck", "RPN", "RoI stages", "masks", "post-processing", "other", "backward", "all")


class Clock:
    """Processor seconds by stage, each without those of the stages that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.inner = [0.0]

    def of(self, owner: Any, name: str, stage: str) -> None:
        """Replace a method of an object by one that is timed."""
        method = getattr(owner, name)

        def timed(*args: Any, **settings: Any) -> Any:
            return self.call(stage, lambda: method(*args, **settings))

        setattr(owner, name, timed)

    def call(self, stage: str, action: Callable[[], Any]) -> Any:
        """Time an action."""
        self.inner.append(0.0)
        started = time.process_time()
        result = action()
        took = time.process_time() - started
        self.seconds[stage] += took - self.inner.pop()
        self.inner[-1] += took
        return result


def ours(clock: Clock) -> MaskRcnn:
    """Cascade Mask R-CNN on HorNet-T with a clock at its stages."""
    model = build_detector("cascade_mask_rcnn_hornet_tiny_7x7")
    clock.of(model.backbone, "forward", "backbone")
    clock.of(model.neck, "forward", "neck")
    clock.of(model.rpn, "forward", "RPN")
    clock.of(model.rpn, "losses", "RPN")
    clock.of(model.rpn, "proposals", "RPN")
    clock.of(model.roi, "train_stages", "RoI stages")
    clock.of(model.roi, "_scores_and_boxes", "RoI stages")
    clock.of(model.roi, "mask_features", "masks")
    for head in model.roi.mask_heads:
        clock.of(head, "forward", "masks")
        clock.of(head, "of_class", "masks")
    clock.of(model.roi, "detect", "post-processing")
    return model


def theirs(clock: Clock, size: tuple[int, int]) -> nn.Module:
    """torchvision's, which takes the image at its own size."""
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=min(size), max_size=max(size))
    roi: Any = model.roi_heads
    clock.of(model.backbone.body, "forward", "backbone")
    clock.of(model.backbone.fpn, "forward", "neck")
    clock.of(model.rpn, "forward", "RPN")
    clock.of(roi, "forward", "RoI stages")
    for part in (roi.mask_roi_pool, roi.mask_head, roi.mask_predictor):
        clock.of(part, "forward", "masks")
    clock.of(roi, "postprocess_detections", "post-processing")
    clock.of(model.transform, "postprocess", "post-processing")
    return model


def set_score(model: Any, image: Tensor) -> None:
    """Let as many candidates through as are wanted."""
    seen: list[Tensor] = []
    if isinstance(model, MaskRcnn):
        scores_and_boxes = model.roi._scores_and_boxes
        model.roi._scores_and_boxes = lambda *args: (found := scores_and_boxes(*args), seen.append(found[0]))[0]
        model(image[None])
        model.roi._scores_and_boxes = scores_and_boxes
        least = float(seen[0].flatten().topk(CANDIDATES).values[-1])
        model.roi.settings = replace(model.roi.settings, score=least)
        return
    predictor = model.roi_heads.box_predictor
    hook = predictor.register_forward_hook(lambda _, __, out: seen.append(out[0].softmax(1)[:, 1:]))
    model([image])
    hook.remove()
    model.roi_heads.score_thresh = float(seen[0].flatten().topk(CANDIDATES).values[-1])


def infer(model: Any, clock: Clock, image: Tensor) -> None:
    """Detections with masks of the image's size."""
    with torch.inference_mode():
        if isinstance(model, MaskRcnn):
            found = model(image[None])[0]
            clock.call("post-processing", found.masks)
        else:
            model([image])


def step(model: Any, clock: Clock, image: Tensor, target: dict[str, Tensor]) -> None:
    """Losses and gradients."""
    if isinstance(model, MaskRcnn):
        loss = total_loss(model(image[None], targets=[target]))
    else:
        shifted = {**target, "labels": target["labels"] + 1}
        loss = torch.stack(list(model([image], [shifted]).values())).sum()
    clock.call("backward", loss.backward)
    model.zero_grad(set_to_none=True)


def example(size: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
    """An image of noise with some boxes, and rectangles as their masks."""
    draws = torch.Generator().manual_seed(0)
    height, width = size
    corners = torch.rand(OBJECTS, 2, generator=draws) * torch.tensor([width / 2, height / 2])
    boxes = torch.cat((corners, corners + 20 + torch.rand(OBJECTS, 2, generator=draws) * height / 3), 1)
    masks = torch.zeros(OBJECTS, height, width, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    labels = torch.randint(0, 80, (OBJECTS,), generator=draws)
    return torch.rand(3, height, width, generator=draws), {"boxes": boxes, "labels": labels, "masks": masks}


def memory(name: str) -> float:
    """Megabytes of this process: `VmRSS` now, or `VmHWM`, the most since `reset`."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def measured(model: Any, clock: Clock, act: Callable[[], None]) -> dict[str, float]:
    """Seconds by stage of one action, and megabytes at its peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the other one has freed goes back
    clock.seconds.clear()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before, started = memory("VmRSS"), time.process_time()
    act()
    total = time.process_time() - started
    found = dict(clock.seconds)
    return found | {"all": total, "other": total - sum(found.values()), "MB": memory("VmHWM") - before}


def compare(title: str, size: tuple[int, int], repeat: int, *, training: bool) -> None:
    """Both detectors in turn, and a table."""
    image, target = example(size)
    contenders: dict[str, tuple[Any, Clock]] = {}
    for name, make in (("cascade HorNet-T", ours), ("torchvision R50", lambda clock: theirs(clock, size))):
        torch.manual_seed(0)
        clock = Clock()
        model = make(clock).train(training)
        contenders[name] = model, clock
        if not training:
            with torch.inference_mode():
                set_score(model, image)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for _ in range(repeat):
        for name, (model, clock) in contenders.items():

            def act(model: Any = model, clock: Clock = clock) -> None:
                step(model, clock, image, target) if training else infer(model, clock, image)

            runs[name].append(measured(model, clock, act))
    print(f"\n{title}, median of {repeat}, seconds of the processor\n")
    print("| | " + " | ".join(STAGES) + " | peak MB |")
    print("|---" * (len(STAGES) + 2) + "|")
    for name, found in runs.items():
        cells = [f"{median(run.get(stage, 0.0) for run in found):.2f}" for stage in STAGES]
        print(f"| {name} | " + " | ".join(cells) + f" | {median(run['MB'] for run in found):.0f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    compare("Training step, one image of 640x480", TRAIN, given.repeat, training=True)
    compare("Inference, one image of 1333x800", TEST, given.repeat, training=False)


if __name__ == "__main__":
    main()
