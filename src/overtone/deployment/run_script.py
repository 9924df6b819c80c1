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
        imports: what the runtime's lines need, a module or a statement in each line.
        lines: of the runtime: from `images` (a batch of one) to `logits` (K,).
    """
    statements = [line for line in imports.splitlines() if line.startswith("from ")]
    modules = ", ".join(["numpy", *(line for line in imports.splitlines() if line not in statements)])
    upright = preprocess.exif == "apply"
    opened = "ImageOps.exif_transpose(Image.open(sys.argv[1]))" if upright else "Image.open(sys.argv[1])"
    return "\n".join(
        [
            "# Classify a picture: python run.py picture.jpg",
            "import json, pathlib, sys",
            f"import {modules}",
            *statements,
            f"from PIL import Image{', ImageOps' if upright else ''}",
            "",
            "here = pathlib.Path(__file__).parent",
            f'picture = {opened}.convert("RGB")',
            *_pixels(kind, preprocess),
            lines,
            f'labels = json.loads((here / "{ABOUT}").read_text("utf-8"))["labels"] or range(len(logits))',
            "shares = numpy.exp(logits - logits.max())",
            "for index in logits.argsort()[::-1][:5]:",
            '    print(f"{100 * shares[index] / shares.sum():.2f} %", labels[index])',
            "",
        ]
    )


def _pixels(kind: InputKind, preprocess: Preprocess) -> list[str]:
    """Lines from `picture` to `images`."""
    lines = [] if kind == "picture" else _geometry(preprocess)
    if kind != "normalised":
        return [*lines, "images = numpy.array(picture)[None]"]
    return [
        *lines,
        f"channels = zip(picture.split(), {preprocess.mean}, {preprocess.std})",
        'images = numpy.stack([(numpy.asarray(x, "float32") / 255 - mean) / std for x, mean, std in channels])[None]',
    ]


def _geometry(preprocess: Preprocess) -> list[str]:
    size, interpolation = preprocess.size, f"Image.Resampling.{_PILLOW[preprocess.interpolation]}"
    if preprocess.resize == "squash":
        return [f"picture = picture.resize(({size}, {size}), {interpolation})"]
    shorter = int(size / preprocess.crop_fraction)
    return [
        f"width, height = ({shorter} * side // min(picture.size) for side in picture.size)",
        f"left, top = round((width - {size}) / 2), round((height - {size}) / 2)",
        f"picture = picture.resize((width, height), {interpolation}).crop((left, top, left + {size}, top + {size}))",
    ]
