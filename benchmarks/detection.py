"""How well a small detector learns shapes that are drawn here: box and mask AP after some minutes.

    python benchmarks/detection.py --head mask_rcnn
    python benchmarks/detection.py --head fcos --epochs 8

Discs and frames of random sizes, places and colours on noise, with their outlines in COCO's form; nothing is read.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Run, Schedule, Train
from overtone.engine.training import train
from overtone.tasks.detection.settings import DetectionSettings

SIZE = (160, 128)


def draw(folder: Path, count: int, seed: int) -> dict:
    """Images with one to four shapes, and their annotations."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    content: dict = {"images": [], "annotations": []}
    content["categories"] = [{"id": 1, "name": "disc"}, {"id": 2, "name": "frame"}]
    for number in range(count):
        image = Image.fromarray(random.integers(0, 90, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
        brush, name = ImageDraw.Draw(image), f"{number:04}.png"
        for _ in range(random.integers(1, 5)):
            width, height = (int(side) for side in random.integers(24, 64, 2))
            left, top = int(random.integers(0, SIZE[0] - width)), int(random.integers(0, SIZE[1] - height))
            kind, colour = int(random.integers(1, 3)), tuple(random.integers(100, 256, 3).tolist())
            corners = (left, top, left + width - 1, top + height - 1)
            (brush.ellipse if kind == 1 else brush.rectangle)(corners, fill=colour)
            angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
            points = 0.5 + 0.5 * np.stack((np.cos(angles), np.sin(angles)), 1)
            if kind == 2:
                points = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], dtype=float)
            outline = (points * (width, height) + (left, top)).round(2).ravel().tolist()
            note = {"id": len(content["annotations"]), "image_id": number, "category_id": kind, "iscrowd": 0}
            note |= {"bbox": [left, top, width, height], "area": width * height, "segmentation": [outline]}
            content["annotations"].append(note)
        image.save(folder / name)
        content["images"].append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
    return content


def main() -> None:
    """Draw, train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", default="mask_rcnn")
    parser.add_argument("--backbone", default="resnet10t")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch", type=int, default=4)
    given = parser.parse_args()
    head_args: dict = {} if given.head in ("ssdlite", "cascade_mask_rcnn") else {"width": given.width}
    if given.head in ("faster_rcnn", "mask_rcnn"):  # few shapes: fewer regions than for COCO
        head_args |= {"box_batch_size_per_image": 64, "rpn_pre_nms_top_n_train": 300, "rpn_post_nms_top_n_train": 200}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "annotations").mkdir()
        for seed, (part, count) in enumerate((("train", given.images), ("val", given.images // 4))):
            (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(draw(root / part, count, seed)))
        recipe = Recipe(
            task="detection",
            settings=DetectionSettings(longest=SIZE[0]),
            model=Model(name=given.backbone, head=given.head, args={"head_args": head_args}),
            data=Data(root=root, preprocess=Preprocess(size=SIZE[1])),
            augment=Augment(crop="none", hflip=0.5, vflip=0.5),
            optim=Optim(name="adamw", lr=1e-3, weight_decay=0.05, decay="no_norm_bias", clip_grad=10.0),
            schedule=Schedule(name="cosine", warmup_epochs=1),
            train=Train(epochs=given.epochs, batch_size=given.batch),
        )
        started = time.perf_counter()
        run = Run(out=root / "run", workers=0, threads=given.threads, plots=False, tensorboard=False)
        summary = train(recipe, run, "shapes")
        seconds = time.perf_counter() - started
    assert summary.report is not None
    table = summary.report.tables()[0]
    for row in (table.columns, *table.rows):
        print(*row, sep=" | ")
    print(f"{seconds:.0f} s, {time.process_time():.0f} s of the processor")


if __name__ == "__main__":
    main()
