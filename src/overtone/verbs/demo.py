"""`overtone demo`: every step once, on handwritten digits, with the commands that a user would type."""

import json
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from overtone import options, zoo
from overtone.deployment.artifact import FILES as EXPORTED
from overtone.deployment.artifact import GOLDEN, read_about
from overtone.deployment.runtimes import RUNTIMES
from overtone.deployment.timing.lane import Lane
from overtone.deployment.timing.race import race
from overtone.deployment.tuning import lane_of_export
from overtone.engine.folder import LOCK, RUN_FILES, is_claimed
from overtone.errors import OvertoneError
from overtone.replacing import check_replaceable, remove_files
from overtone.verbs.console import print_line

try:
    from sklearn.datasets import load_digits
except ImportError:  # an optional dependency: only the demo's digits come from there
    load_digits = None

_ABOUT = "about.txt"
_ABOUT_TEXT = (
    "Made by `overtone demo`: images/ holds the digits, run/ the training, report/ the evaluation, export/ the network "
    "without PyTorch.\n"
)
_PARTS = {"train": 0.7, "val": 0.1, "test": 0.2}  # shares of each class
_FILES = (
    *(f"images/{part}/[0-9]/*.png" for part in _PARTS),
    *(f"run/{name}" for name in (*RUN_FILES, LOCK, ".*.[0-9]*.tmp")),
    *(f"report/{name}" for name in ("evaluation.json", "images.jsonl", "confusion.png", "reliability.png")),
    *(f"export/{name}" for name in EXPORTED),
    _ABOUT,
)
_SIDE = 32  # pixels; the digits have 8x8
_SEED = 0
_ROUNDS = 10  # turns of each form of the network
_PREDICTED = ("test/2", "test/5", "test/8")  # one image of each of these folders is predicted


def demo(chosen: options.Demo) -> int:
    """Write the digits, train, evaluate, predict, export, and list the files.

    Raises:
        OvertoneError: scikit-learn is not installed, the folder is in use, or one of the commands failed.
    """
    if load_digits is None:
        raise OvertoneError(
            'the demo\'s digits come with scikit-learn, which is not installed: pip install "overtone[demo]"'
        )
    started = time.perf_counter()
    out = chosen.out
    _prepare(out, chosen.overwrite)
    images, run, report, exported = out / "images", out / "run", out / "report", out / "export"
    print_line("Handwritten digits, 8x8 pixels, ten classes (scikit-learn's digits, from the UCI repository).")
    for part, number in write_digits(images).items():
        print_line(f"  {images / part}: {number} images")
    # On images of 40 pixels a second thread of arithmetic waits more than it works; the other core reads the images.
    _type("train", "digits", str(images), "--run.out", str(run), "--run.threads", "1")
    _type("evaluate", str(run), str(images), "--data.split", "test", "--out", str(report))
    three = [str(min((images / folder).iterdir())) for folder in _PREDICTED]
    _type("predict", str(run), *three, "--top-k", "3")
    runtime = "onnx" if RUNTIMES["onnx"].missing() is None else "torch"
    checked = ("--calibration", str(images / "test"), "--threads", "1")
    _type("export", str(run), "--to", runtime, "--out", str(exported), *checked)
    _type("predict", str(exported), *three, "--top-k", "3")
    print_line(f"\n{compare_latency(run, exported)}")
    accuracy = json.loads((report / "evaluation.json").read_text(encoding="utf-8"))["top1"]
    print_line(
        f"\nDone in {time.perf_counter() - started:.0f} s: top-1 {accuracy:.2f} % on test digits.\n"
        f"  the network           {run / 'best.safetensors'}\n"
        f"  curves                {run / 'curves.png'}\n"
        f"  confusion matrix      {report / 'confusion.png'}\n"
        f"  every figure          {report / 'evaluation.json'}\n"
        f"  the network exported  {exported}\n"
        "Your own images: put each class in a folder of its own, photos/cat, photos/dog, …, and\n"
        "  overtone train photos"
    )
    return 0


def compare_latency(run: Path, exported: Path) -> str:
    """Compare the latency of the trained network and of its export, in turns, one image at a time."""
    about = read_about(exported)
    with Lane(_call_of_network, run, exported / GOLDEN) as trained, lane_of_export(exported) as artifact:
        before, after = race([trained.turn, artifact.turn], _ROUNDS)
    return (
        f"One image, median of {len(after.seconds)} calls: {before.median:.2f} ms as trained in PyTorch, "
        f"{after.median:.2f} ms in {RUNTIMES[about.runtime].title}, {before.median / after.median:.1f}x; the largest "
        f"difference of a logit is {about.parity['largest']:.0e} of their scale, the same best class for "
        f"{100 * about.parity['same_decisions']:.0f} % of {about.parity['images']} digits."
    )


def _call_of_network(run: Path, golden: Path) -> Callable[[], object]:
    model = zoo.load_model(str(run)).model
    with np.load(golden) as values:
        image = torch.from_numpy(values["inputs"][:1])

    def call() -> object:
        with torch.inference_mode():
            return model(image)

    return call


def write_digits(folder: Path) -> dict[str, int]:
    """Write scikit-learn's 1,797 digits as PNG files of 32x32 pixels, `folder`/part/class/number.png.

    Each class is shuffled by a fixed seed and cut into train (70 %), val (10 %) and test (20 %).

    Returns:
        Number of images in each part.
    """
    assert load_digits is not None
    digits: Any = load_digits()
    shuffle = random.Random(_SEED).shuffle
    counts = dict.fromkeys(_PARTS, 0)
    for name in range(10):
        positions = np.flatnonzero(digits.target == name).tolist()
        shuffle(positions)
        first = round(len(positions) * _PARTS["train"])
        second = first + round(len(positions) * _PARTS["val"])
        parts = {"train": positions[:first], "val": positions[first:second], "test": positions[second:]}
        for part, members in parts.items():
            counts[part] += len(members)
            (folder / part / str(name)).mkdir(parents=True, exist_ok=True)
            for position in members:
                _image(digits.images[position]).save(folder / part / str(name) / f"{position:04d}.png")
    return counts


def _image(grey: np.ndarray) -> Image.Image:
    """Draw a digit of 8x8 values in 0..16, dark on light."""
    values = np.rint(255 - grey * (255 / 16)).astype(np.uint8)
    return Image.fromarray(values).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


def _prepare(out: Path, overwrite: bool) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / _ABOUT).is_file():
            raise OvertoneError(f"{out} holds something that is not a demo's; choose another folder with --out")
        if not overwrite:
            raise OvertoneError(f"{out} holds an earlier demo; replace it with --overwrite, or choose another --out")
        check_replaceable(out, _FILES, "move them away, or choose another --out")
        if is_claimed(out / "run"):
            raise OvertoneError(f"another run is using {out / 'run'}; wait for it, or choose another --out")
        remove_files(out, _FILES)
    out.mkdir(parents=True, exist_ok=True)
    (out / _ABOUT).write_text(_ABOUT_TEXT, encoding="utf-8")


def _type(*words: str) -> None:
    """Print a command and run it as a process of its own."""
    print_line(f"\n$ {shlex.join(['overtone', *words])}")
    sys.stdout.flush()
    code = subprocess.run([sys.executable, "-m", "overtone", *words], check=False).returncode
    if code == 130:
        raise KeyboardInterrupt
    if code != 0:
        raise OvertoneError(f"that command ended with exit code {code}; its messages are above")
