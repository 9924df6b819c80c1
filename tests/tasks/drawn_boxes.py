"""Images of filled shapes with their boxes and outlines, written in every form of annotation."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

NAMES = ("disc", "frame")
COLOURS = {"disc": (60, 200, 90), "frame": (220, 60, 40)}


@dataclass(frozen=True)
class Drawn:
    """An image's name, size (width, height), and its shapes: name and box (left, top, width, height)."""

    name: str
    size: tuple[int, int]
    shapes: tuple[tuple[str, tuple[int, int, int, int]], ...]


def draw(folder: Path, count: int, seed: int = 0, size: tuple[int, int] = (96, 64), largest: int = 30) -> list[Drawn]:
    """Images of 0 to 3 shapes (the third one has none); the files are in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    images = []
    for number in range(count):
        pixels = random.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
        image, shapes = Image.fromarray(pixels), []
        brush = ImageDraw.Draw(image)
        for _ in range(0 if number == 2 else random.integers(1, 4)):
            width, height = (int(side) for side in random.integers(16, largest, 2))
            left, top = int(random.integers(0, size[0] - width)), int(random.integers(0, size[1] - height))
            name = NAMES[int(random.integers(0, 2))]
            shape = brush.ellipse if name == "disc" else brush.rectangle
            shape((left, top, left + width - 1, top + height - 1), fill=COLOURS[name])
            shapes.append((name, (left, top, width, height)))
        image.save(folder / f"{seed}-{number:03}.png")
        images.append(Drawn(f"{seed}-{number:03}.png", size, tuple(shapes)))
    return images


def coco(images: list[Drawn], outlines: bool = False) -> dict[str, Any]:
    """COCO's content, with category ids that are not consecutive."""
    ids = {"disc": 7, "frame": 3}
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": number, "name": name} for name, number in ids.items()]
    for number, image in enumerate(images):
        width, height = image.size
        content["images"].append({"id": number, "file_name": image.name, "width": width, "height": height})
        for name, (left, top, w, h) in image.shapes:
            note: dict[str, Any] = {
                "id": len(content["annotations"]),
                "image_id": number,
                "category_id": ids[name],
                "iscrowd": 0,
            }
            note |= {"bbox": [left, top, w, h], "area": w * h}
            if outlines:
                note["segmentation"] = [outline(name, left, top, w, h)]
            content["annotations"].append(note)
    return content


def outline(name: str, left: int, top: int, width: int, height: int) -> list[float]:
    """A polygon around a shape."""
    if name == "frame":
        points = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], dtype=float)
    else:
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        points = 0.5 + 0.5 * np.stack((np.cos(angles), np.sin(angles)), 1)
    return (points * (width, height) + (left, top)).round(2).ravel().tolist()


def write_coco(root: Path, parts: dict[str, list[Drawn]], outlines: bool = False) -> Path:
    """`annotations/instances_<part>.json`, the images in `<part>/`."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for part, images in parts.items():
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(coco(images, outlines)))
    return root


def xml(image: Drawn) -> str:
    """VOC's file of an image."""
    objects = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{left}</xmin><ymin>{top}</ymin>"
        f"<xmax>{left + w}</xmax><ymax>{top + h}</ymax></bndbox></object>"
        for name, (left, top, w, h) in image.shapes
    )
    width, height = image.size
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{image.name}</filename>{size}{objects}</annotation>"


def write_voc(root: Path, parts: dict[str, list[Drawn]]) -> Path:
    """`Annotations/` and `ImageSets/Main/`; the images belong into `JPEGImages/`."""
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for part, images in parts.items():
        stems = [Path(image.name).stem for image in images]
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(stems) + "\n")
        for image, stem in zip(images, stems, strict=True):
            (root / "Annotations" / f"{stem}.xml").write_text(xml(image))
    return root


def write_yolo(root: Path, parts: dict[str, list[Drawn]]) -> Path:
    """`data.yaml` and `labels/<part>/`; the images belong into `images/<part>/`. Without shapes there is no file."""
    lines = ["names:", *(f"  {number}: {name}" for number, name in enumerate(reversed(NAMES)))]
    (root / "data.yaml").write_text("\n".join(["path: .", *(f"{p}: images/{p}" for p in parts), *lines]) + "\n")
    for part, images in parts.items():
        (root / "labels" / part).mkdir(parents=True, exist_ok=True)
        for image in images:
            width, height = image.size
            rows = [
                f"{NAMES[::-1].index(name)} {(left + w / 2) / width:.6f} {(top + h / 2) / height:.6f} "
                f"{w / width:.6f} {h / height:.6f}\n"
                for name, (left, top, w, h) in image.shapes
            ]
            if rows:
                (root / "labels" / part / image.name).with_suffix(".txt").write_text("".join(rows))
    return root


def write_table(path: Path, parts: dict[str, list[Drawn]]) -> Path:
    """A CSV with a row for each shape, and one for an image without."""
    rows: list[list[object]] = [["image", "label", "xmin", "ymin", "xmax", "ymax", "split"]]
    for part, images in parts.items():
        for image in images:
            for name, (left, top, w, h) in image.shapes:
                rows.append([image.name, name, left, top, left + w, top + h, part])
            if not image.shapes:
                rows.append([image.name, "", "", "", "", "", part])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def in_every_form(root: Path, count: int = 6) -> dict[str, dict[str, Any]]:
    """The same images and shapes as COCO, VOC, YOLO and table; gives the `data` settings of each."""
    parts = {}
    for seed, part in enumerate(("train", "val")):
        for folder in (f"coco/{part}", "voc/JPEGImages", f"yolo/images/{part}", "table"):
            parts[part] = draw(root / folder, count, seed)
    return {
        "coco": {"root": write_coco(root / "coco", parts)},
        "voc": {"root": write_voc(root / "voc", parts)},
        "yolo": {"root": write_yolo(root / "yolo", parts)},
        "table": {"table": write_table(root / "table" / "boxes.csv", parts)},
    }
