"""Detections off the device, as COCO's results, and drawn on their images."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from overtone.checkpoint import write_text, write_with
from overtone.data.decoding import decode_image
from overtone.data.mask_forms import MaskForm, hex_colour, png_text
from overtone.data.segments import decoded, mask_module
from overtone.heads.roi_heads import Detections
from overtone.tasks.detection.coco_classes import category_ids
from overtone.tasks.detection.coco_metrics import Found
from overtone.tasks.segmentation.drawing import palette

_OPACITY = 0.45


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
        """The image with what was found, the surest on top."""
        height, width = self.size
        if not isinstance(image, Image.Image):
            path, image = image, decode_image(image)
            if image.size != (width, height):
                image = decode_image(path, "apply")  # the network saw it turned
        image = image.convert("RGB")
        colours = palette(len(self.labels))
        if self.found.masks:
            pixels = np.asarray(image, dtype=np.float32).copy()
            for at in reversed(range(len(self.found.labels))):
                inside = decoded(self.found.masks[at]).astype(bool)
                pixels[inside] = (1 - _OPACITY) * pixels[inside] + _OPACITY * colours[self.found.labels[at]]
            image = Image.fromarray(np.rint(pixels).astype(np.uint8))
        draw, line = ImageDraw.Draw(image), max(1, round(min(image.size) / 240))
        for at in reversed(range(len(self.found.labels))):
            label = self.found.labels[at]
            colour = tuple(colours[label].tolist())
            left, top, right, bottom = self.found.boxes[at].tolist()
            draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=line)
            text = f"{self.labels[label]} {self.found.scores[at]:.2f}"
            corner = draw.textbbox((left, max(top - 12, 0)), text)
            draw.rectangle(corner, fill=colour)
            draw.text(corner[:2], text, fill="black" if sum(colour) > 380 else "white", anchor="lt")
        return image
