"""`run.py` of an export: it classifies an image with NumPy, Pillow and the runtime, without overtone."""

from overtone.config import Preprocess
from overtone.deployment.inputs import InputKind
from overtone.deployment.telemetry import SWITCHES

_PILLOW = {"nearest": "NEAREST", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS"}


def run_script(
    kind: InputKind,
    preprocess: Preprocess,
    imports: str,
    lines: str,
    answer: tuple[str, ...],
    prepare: tuple[str, ...] | None = None,
) -> str:
    """The text of `run.py`.

    Args:
        kind: the network's kind of input.
        preprocess: from a decoded image to the normalised input; the part of it that is in the graph is left out.
        imports: what the runtime's lines need, a module or a statement in each line.
        lines: of the runtime: from `images` (a batch of one) to `outputs`, arrays.
        answer: of the task: from `logits`, of the image in the first output, and `about` to what is printed; with
            `prepare` from `outputs`.
        prepare: of a task with a form of its own: from `image` and `about` to `images`.
    """
    statements = [line for line in imports.splitlines() if line.startswith("from ")]
    modules = ", ".join(["numpy", *(line for line in imports.splitlines() if line not in statements)])
    opened = "Image.open(sys.argv[1])"
    if preprocess.exif == "apply":
        opened = f"ImageOps.exif_transpose({opened})"
    return "\n".join(
        [
            f"# {'Classify' if prepare is None else 'Read'} an image: python run.py image.jpg",
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
            *(_pixels(kind, preprocess) if prepare is None else prepare),
            lines,
            *(["logits = outputs[0][0]"] if prepare is None else []),
            *answer,
            "",
        ]
    )


def _pixels(kind: InputKind, preprocess: Preprocess) -> list[str]:
    """Lines from `image` to `images`."""
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
