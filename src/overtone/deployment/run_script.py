"""`run.py` of an export: it classifies a picture with NumPy, Pillow and the runtime, and nothing of overtone."""

from overtone.config import Preprocess
from overtone.deployment.artifact import ABOUT
from overtone.deployment.inputs import InputKind

_PILLOW = {"nearest": "NEAREST", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS"}


def run_script(kind: InputKind, preprocess: Preprocess, imports: str, lines: str) -> str:
    """The text of `run.py`.

    Args:
        kind: what the network takes.
        preprocess: from a decoded picture to the normalised input; what of it is in the graph is left out.
        imports: what the runtime's lines need.
        lines: of the runtime: from `images` (a batch of one) to `logits` (K,).
    """
    upright = preprocess.exif == "apply"
    modules = "\n".join(line if line.startswith("from ") else f"import {line}" for line in imports.splitlines())
    head = f"""# Classify a picture: python run.py picture.jpg (needs numpy, pillow and what is imported here)
import json, pathlib, sys
import numpy
{modules}
from PIL import Image{", ImageOps" if upright else ""}

here = pathlib.Path(__file__).parent
picture = Image.open(sys.argv[1])
picture = {"ImageOps.exif_transpose(picture)" if upright else "picture"}.convert("RGB")
"""
    tail = f"""labels = json.loads((here / "{ABOUT}").read_text("utf-8"))["labels"]
shares = numpy.exp(logits - logits.max()) / numpy.exp(logits - logits.max()).sum()
for index in shares.argsort()[::-1][:5]:
    print(f"{{100 * shares[index]:.2f}} %", labels[index] if labels else index)
"""
    return f"{head}{_pixels(kind, preprocess)}{lines}\n{tail}"


def _pixels(kind: InputKind, preprocess: Preprocess) -> str:
    if kind == "picture":
        return "images = numpy.array(picture)[None]\n"
    size, filter_name = preprocess.size, f"Image.Resampling.{_PILLOW[preprocess.interpolation]}"
    if preprocess.resize == "squash":
        text = f"picture = picture.resize(({size}, {size}), {filter_name})\n"
    else:
        shorter = int(size / preprocess.crop_fraction)
        text = (
            f"width, height = ({shorter} * side // min(picture.size) for side in picture.size)\n"
            f"picture = picture.resize((width, height), {filter_name})\n"
            f"left, top = round((width - {size}) / 2), round((height - {size}) / 2)\n"
            f"picture = picture.crop((left, top, left + {size}, top + {size}))\n"
        )
    if kind == "pixels":
        return text + "images = numpy.array(picture)[None]\n"
    mean, std = list(preprocess.mean), list(preprocess.std)
    return text + (
        f"images = (numpy.asarray(picture, numpy.float32) / 255 - numpy.float32({mean})) / numpy.float32({std})\n"
        "images = numpy.ascontiguousarray(images.transpose(2, 0, 1)[None])\n"
    )
