"""Detections off the device, as COCO's results, and drawn on their images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from overtone.checkpoint import write_text, write_with
from overtone.data.decoding import decode_image
from overtone.data.mask_forms import MaskForm, hex_colour, png_text
from overtone.data.segments import decoded, mask_module, run_lengths
from overtone.data.sources import Objects
from overtone.heads.roi_heads import Detections
from overtone.tasks.detection.coco_classes import category_ids
from overtone.tasks.detection.coco_metrics import Found
from overtone.tasks.detection.matching import partners
from overtone.tasks.segmentation.drawing import palette

_OPACITY = 0.45
_GAP = 8  # pixels between two images beside each other


def found_of(detections: Detections) -> Found:
    """Detections as arrays, by descending score, with their masks as run lengths at the size of the image."""
    scores = detections.scores.detach().float().cpu().numpy()
    order = np.argsort(-scores, kind="stable")
    masks = None
    if detections.mask_probabilities is not None:
        bitmaps = detections.masks().cpu().numpy().astype(np.uint8)[order]  # N, H, W
        masks = tuple(mask_module().encode(np.asfortranarray(bitmaps.transpose(1, 2, 0)))) if len(bitmaps) else ()
    boxes = detections.boxes.detach().float().cpu().numpy().reshape(-1, 4)
    return Found(boxes[order], scores[order], detections.labels.detach().cpu().numpy()[order], masks)


@dataclass(frozen=True, eq=False)
class DetectionPrediction:
    """The objects found in one image, by descending score.

    Attributes:
        found: all that reach the threshold.
        labels: names of all classes.
        size: height and width of the image.
    """

    found: Found
    labels: tuple[str, ...]
    size: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        predictions = [
            {"index": int(label), "label": self.labels[label], "score": float(score), "box": box}
            for label, score, box in zip(self.found.labels, self.found.scores, self.found.boxes.tolist(), strict=True)
        ]
        return {"width": self.size[1], "height": self.size[0], "predictions": predictions}

    def masks_to_dict(self, values: dict[str, Any], form: MaskForm) -> dict[str, Any]:
        """`to_dict`'s values with a colour for each object and, where there are masks, its `mask` or `segmentation`.

        Args:
            values: what `to_dict` gave.
            form: `png`: a PNG of 1 bit of the image's size; `rle`: COCO's compressed run lengths.
        """
        colours = palette(len(self.labels))
        for at, one in enumerate(values["predictions"]):
            one["colour"] = hex_colour(colours[one["index"]])
            if self.found.masks is not None and form == "png":
                one["mask"] = {"format": "png", "data": png_text(decoded(self.found.masks[at]).astype(bool))}
            elif self.found.masks is not None:
                runs: Mapping[str, Any] = self.found.masks[at]
                one["segmentation"] = {"size": list(runs["size"]), "counts": runs["counts"].decode()}
        return values

    def to_row(self) -> dict[str, Any]:
        """As `to_dict`, each object with its `mask`: COCO's run lengths as text; None without masks."""
        values, masks = self.to_dict(), self.found.masks
        for at, prediction in enumerate(values["predictions"]):
            prediction["mask"] = None if masks is None else masks[at]["counts"].decode()
        return values

    def rows(self) -> list[tuple[Any, ...]]:
        """A line for each object."""
        lines = [
            (self.labels[label], f"{100 * score:.2f} %", ", ".join(f"{value:.0f}" for value in box))
            for label, score, box in zip(self.found.labels, self.found.scores, self.found.boxes, strict=True)
        ]
        return lines or [("(nothing reaches the threshold)", None, None)]

    def coco_results(self, image_id: int | str) -> list[dict[str, Any]]:
        """COCO's results: boxes as [left, top, width, height], masks as run lengths."""
        ids, results = category_ids(self.labels), []
        for at, (left, top, right, bottom) in enumerate(self.found.boxes.tolist()):
            result: dict[str, Any] = {"image_id": image_id, "category_id": ids[self.found.labels[at]]}
            result |= {"bbox": [left, top, right - left, bottom - top], "score": float(self.found.scores[at])}
            if self.found.masks is not None:
                runs: Mapping[str, Any] = self.found.masks[at]
                result["segmentation"] = {"size": list(runs["size"]), "counts": runs["counts"].decode()}
            results.append(result)
        return results

    def write(self, image: Any, folder: Path, stem: str) -> list[Path]:
        """Write `<stem>.png`, the image with boxes, masks, names and scores, and `<stem>.json`, COCO's results.

        Args:
            image: the image, a path or Pillow's.
            folder: is made where it is not there.
            stem: of the names; where it is a number (with leading zeros perhaps), that is the image's id.
        """
        folder.mkdir(parents=True, exist_ok=True)
        drawn, results = self.drawn(image), self.coco_results(int(stem) if stem.isdecimal() else stem)
        files = folder / f"{stem}.png", folder / f"{stem}.json"
        write_with(files[0], lambda path: drawn.save(path, format="PNG"))
        write_text(files[1], json.dumps(results) + "\n")
        return list(files)

    def drawn(self, image: Any) -> Image.Image:
        """The image with what was found, the surest on top; a path or Pillow's."""
        return _drawn(_opened(image, self.size), self.found, self.labels)

    def beside(self, image: Any, objects: Objects) -> Image.Image:
        """What is marked, on the left, and what was found; what was missed and what is wrong has thick lines."""
        image, found = _opened(image, self.size), self.found
        partner = partners(objects, found.boxes, found.labels)
        is_right = partner >= 0
        is_right[is_right] = objects.labels[partner[is_right]] == found.labels[is_right]
        is_missed = ~(objects.crowd | objects.difficult)
        is_missed[partner[is_right]] = False
        masks = None
        if found.masks is not None and objects.outlines is not None:
            pairs = zip(objects.outlines, objects.boxes.tolist(), strict=True)
            masks = tuple(run_lengths(outline, box, *self.size) for outline, box in pairs)
        marked = Found(objects.boxes, np.ones(len(objects)), objects.labels, masks)
        is_wrong = ~is_right
        is_wrong[partner >= 0] &= ~(objects.crowd | objects.difficult)[partner[partner >= 0]]
        sides = _drawn(image, marked, self.labels, is_missed, scores=False), _drawn(image, found, self.labels, is_wrong)
        joined = Image.new("RGB", (2 * image.width + _GAP, image.height), "white")
        joined.paste(sides[0], (0, 0))
        joined.paste(sides[1], (image.width + _GAP, 0))
        return joined


def _opened(image: Any, size: tuple[int, int]) -> Image.Image:
    """An image, a path or Pillow's, in RGB and turned as the network saw it."""
    if not isinstance(image, Image.Image):
        path, image = image, decode_image(image)
        if image.size != size[::-1]:
            image = decode_image(path, "apply")
    return image.convert("RGB")


def _drawn(
    image: Image.Image, found: Found, labels: tuple[str, ...], thick: np.ndarray | None = None, *, scores: bool = True
) -> Image.Image:
    """The image with boxes, masks, names and perhaps scores, the surest on top; some boxes have thick lines."""
    colours, order = palette(len(labels)), range(len(found.labels))[::-1]
    image = Image.fromarray(_masked(np.asarray(image), found, colours)) if found.masks else image.copy()
    draw, line = ImageDraw.Draw(image), max(1, round(min(image.size) / 300))
    for at in order:
        left, top, right, bottom = found.boxes[at].tolist()
        box = left, top, max(left, right), max(top, bottom)
        width = 3 * line if thick is not None and thick[at] else line
        draw.rectangle(box, outline=tuple(colours[found.labels[at]].tolist()), width=width)
    font = ImageFont.load_default(max(10, round(min(image.size) / 40)))
    for at in order:  # names over all boxes, within the image
        text = f"{labels[found.labels[at]]} {found.scores[at]:.2f}" if scores else labels[found.labels[at]]
        colour = tuple(colours[found.labels[at]].tolist())
        width, height = draw.textbbox((0, 0), text, font=font, anchor="lt")[2:]
        left = min(max(found.boxes[at][0], 0), max(image.width - width - 4, 0))
        top = max(found.boxes[at][1] - height - 4, 0)
        draw.rectangle((left, top, left + width + 3, top + height + 3), fill=colour)
        draw.text((left + 2, top + 2), text, font=font, fill=_ink(colour), anchor="lt")
    return image


def _ink(colour: Sequence[int]) -> str:
    """Black or white, whichever is easier to read on a colour (luma of ITU-R BT.601)."""
    return "black" if np.dot(colour, (0.299, 0.587, 0.114)) > 140 else "white"


def _masked(pixels: np.ndarray, found: Found, colours: np.ndarray) -> np.ndarray:
    """The pixels, uint8 `(H, W, 3)`, with translucent masks whose edges are opaque, the surest on top."""
    pixels = pixels.astype(np.float32)
    for at in reversed(range(len(found.labels))):
        assert found.masks is not None
        inside, colour = decoded(found.masks[at]).astype(bool), colours[found.labels[at]]
        pixels[inside] = (1 - _OPACITY) * pixels[inside] + _OPACITY * colour
        padded = np.pad(inside, 1)
        core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        pixels[inside & ~core] = colour
    return np.rint(pixels).astype(np.uint8)
