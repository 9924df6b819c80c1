"""`run.py` of an export: what a task does with an image, by NumPy, Pillow and the runtime, without overtone."""

from collections.abc import Sequence

from overtone.config import Preprocess
from overtone.deployment.inputs import InputKind
from overtone.deployment.telemetry import SWITCHES

_PILLOW = {"nearest": "NEAREST", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS"}


def run_script(
    does: str, pixels: Sequence[str], exif: str, runtime: tuple[str, str, str], answer: Sequence[str]
) -> str:
    """The text of `run.py`.

    Args:
        does: of the task, such as `classifies an image`.
        pixels: lines from `image` to `logits`; none where the task's own lines do that.
        exif: `Preprocess.exif`.
        runtime: what is imported, a module or a statement in each line, lines that open `net`, and its outputs.
        answer: of the task: see `Task.script`.
    """
    imports, opens, outputs = runtime
    statements = [line for line in imports.splitlines() if line.startswith("from ")]
    modules = ", ".join(["numpy", *(line for line in imports.splitlines() if line not in statements)])
    opened = "Image.open(sys.argv[1])"
    if exif == "apply":
        opened = f"ImageOps.exif_transpose({opened})"
    return "\n".join(
        [
            f"# python run.py image.jpg {does}",
            "import json, os, pathlib, sys",
            *SWITCHES,
            f"import {modules}",
            *statements,
            "from PIL import Image, ImageOps",
            "",
            "here = pathlib.Path(__file__).parent",
            'about = json.loads((here / "model.json").read_text("utf-8"))',
            "try:",
            f'    image = {opened}.convert("RGB")',
            "except Exception as error:",
            '    print(f"{sys.argv[1:2]}: not an image that can be read ({type(error).__name__})", file=sys.stderr)',
            "    sys.exit(2)",
            opens,
            "",
            "",
            "def run(images):",
            f"    return {outputs}",
            "",
            "",
            *pixels,
            *answer,
            "",
        ]
    )


def lines_to_logits(kind: InputKind, preprocess: Preprocess) -> list[str]:
    """Lines from `image` to `logits` of a classifier, without the part of the preprocessing that is in the graph."""
    return [*_to_images(kind, preprocess), "logits = run(images)[0][0]"]


def _to_images(kind: InputKind, preprocess: Preprocess) -> list[str]:
    lines = [] if kind == "image" else _geometry(preprocess)
    if kind != "normalised":
        return [*lines, "images = numpy.array(image)[None]"]
    return [
        *lines,
        f"channels = zip(image.split(), {preprocess.mean}, {preprocess.std})",
        'images = numpy.stack([(numpy.asarray(x, "float32") / 255 - mean) / std for x, mean, std in channels])[None]',
    ]


def _geometry(preprocess: Preprocess) -> list[str]:
    size, interpolation = preprocess.size, f"Image.Resampling.{_PILLOW[preprocess.interpolation]}"
    if preprocess.resize == "squash":
        return [f"image = image.resize(({size}, {size}), {interpolation})"]
    shorter = int(size / preprocess.crop_fraction)
    return [
        f"width, height = ({shorter} * side // min(image.size) for side in image.size)",
        f"left, top = round((width - {size}) / 2), round((height - {size}) / 2)",
        f"image = image.resize((width, height), {interpolation}).crop((left, top, left + {size}, top + {size}))",
    ]
