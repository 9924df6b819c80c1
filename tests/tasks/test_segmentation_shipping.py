"""A segmentation deployed, exported at one size and at any, run without overtone, evaluated, tuned and measured."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_scenes import Tiny, draw, recipe_for, run_in, scene
from torch import nn

from overtone import api, config, deploy
from overtone.checkpoint import read_checkpoint, write_checkpoint
from overtone.cli import main
from overtone.config import Preprocess, Recipe
from overtone.deployment.export import Origin, Request, export
from overtone.deployment.rewrites.adaptive_pools import ProductPool
from overtone.engine.training import train
from overtone.errors import OvertoneError
from overtone.heads import create_segmenter
from overtone.tasks.segmentation import standalone
from overtone.tasks.segmentation.settings import SegmentationSettings
from overtone.tasks.segmentation.task import Segmentation
from overtone.tasks.task import Setup

CROP = 16


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Scenes, and the folder of a run on them."""
    folder = tmp_path_factory.mktemp("trained")
    root = draw(draw(folder / "data", 8), 3, "val", seed=1)
    recipe = dataclasses.replace(recipe_for(root, epochs=2), model=config.Model(name="test_resnet", head="lraspp"))
    train(recipe, run_in(folder / "run"), "scenes")  # timm's smallest: what is exported has few layers
    return root, folder / "run"


def checkpoint_with(run: Path, path: Path, **settings: Any) -> Path:
    """The run's weights as a file whose recipe infers otherwise."""
    kept = read_checkpoint(run / "best.safetensors")
    recipe = dict(kept.manifest.recipe or {})
    recipe["settings"] = {**recipe["settings"], **settings}
    write_checkpoint(path, dataclasses.replace(kept.manifest, recipe=recipe), kept.weights, {})
    return path


def printed(capfd: pytest.CaptureFixture[str], *words: object) -> Any:
    """What a verb prints as JSON."""
    capfd.readouterr()
    assert main([*map(str, words), "--json"]) == 0, capfd.readouterr().err
    return json.loads(capfd.readouterr().out)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def run_script(folder: Path, image: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """`run.py` in a process where overtone cannot be imported."""
    code = (
        "import runpy, sys; sys.modules['overtone'] = None; sys.argv = sys.argv[1:];"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    words = [sys.executable, "-c", code, folder / "run.py", image, out]
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("way", ["any size", "windows"])
def test_an_export_says_what_the_run_says(trained, tmp_path, capfd, way):
    pytest.importorskip("onnxruntime")
    root, run = trained
    network: Path = run
    if way == "windows":
        network = checkpoint_with(run, tmp_path / "slides.safetensors", inference="slide", pad=True, stride=9)
    folder, dynamic = tmp_path / "onnx", ("--dynamic",) if way == "any size" else ()
    about = printed(capfd, "export", network, "--to", "onnx", *dynamic, "--out", folder)
    assert about["input"]["shape"] == [1, 3, *((None, None) if dynamic else (CROP, CROP))]
    assert about["parity"]["same_decisions"] == 1 and about["parity"]["largest"] < 1e-4
    images = sorted((root / "images" / "val").iterdir())
    Image.fromarray(scene(np.random.default_rng(3), 37, 51)[0]).save(tmp_path / "larger.png")
    Image.fromarray(scene(np.random.default_rng(4), 12, 20)[0]).save(tmp_path / "small.png")
    images += [tmp_path / "larger.png", tmp_path / "small.png"]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    shares = [
        printed(capfd, "predict", what, *images, "--out", out)["images"]
        for what, out in ((network, ours), (folder, theirs))
    ]
    assert shares[0] == shares[1]
    for image in images:
        np.testing.assert_array_equal(pixels(ours / f"{image.stem}.png"), pixels(theirs / f"{image.stem}.png"))
    evaluated = [
        printed(capfd, "evaluate", what, "--data.root", root, "--data.split", "val", "--run.workers", 0)
        for what in (network, folder)
    ]
    assert evaluated[0]["confusion"] == evaluated[1]["confusion"] and evaluated[0]["miou"] == evaluated[1]["miou"]
    (tmp_path / "bad.png").write_text("no image")
    done = run_script(folder, tmp_path / "bad.png", tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "bad.png" in done.stderr
    for image in images[-2:]:
        done = run_script(folder, image, tmp_path / "alone")
        assert done.returncode == 0, done.stderr
        stem = image.stem
        np.testing.assert_array_equal(pixels(tmp_path / "alone" / f"{stem}.mask.png"), pixels(ours / f"{stem}.png"))
        with Image.open(tmp_path / "alone" / f"{stem}.mask.png") as alone, Image.open(ours / f"{stem}.png") as written:
            assert alone.getpalette() == written.getpalette()
        np.testing.assert_array_equal(*(pixels(where / f"{stem}.overlay.png") for where in (tmp_path / "alone", ours)))
        said = {line.split(" % ")[1]: float(line.split(" % ")[0]) for line in done.stdout.splitlines() if " % " in line}
        named = next(one for one in shares[0] if one["image"] == str(image))["predictions"]
        assert said == {one["label"]: pytest.approx(100 * one["share"], abs=0.006) for one in named}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"inference": "slide", "stride": 7},
        {"inference": "slide", "pad": True, "scale": (60, 40)},
        {"scale": (24, 20)},
        {"scale": (60, 40), "antialias": False, "scales": (0.75, 1.25), "flip": True},
        {"inference": "slide", "window": 20, "flip": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(29, 38), (12, 40)])
def test_without_overtone_the_same_is_computed(settings, size):
    task = Segmentation(
        Setup(
            ("a", "b", "c"),
            Recipe(data=config.Data(preprocess=Preprocess(size=CROP)), settings=SegmentationSettings(**settings)),
        )
    )
    torch.manual_seed(0)
    net = Tiny().eval()
    form = task.export_form(net, None, any_size=True)
    assert form is not None
    image = Image.fromarray(scene(np.random.default_rng(5), *size)[0])
    with torch.no_grad():
        (expected,) = task.predictions(task.predict(net, task.transform()(image)), 5)

        def run(images: np.ndarray) -> list[np.ndarray]:
            return [net(torch.from_numpy(images)).numpy()]

        found = standalone.classes_of(run, image, form.settings, config.to_dict(Preprocess(size=CROP)))
    assert found.shape == size
    # A resized image may differ by a grey level: Pillow and torchvision round at different places.
    assert (found == expected.classes).mean() >= (1 if "scale" not in settings and "scales" not in settings else 0.98)


@pytest.mark.parametrize("head", ["upernet", "upernet_gn7x7", "upernet_gngf", "lraspp", "fcn", "deeplabv3"])
def test_the_whole_network_is_folded(head):
    arguments = {"head_args": {"channels": 8}} if head.startswith("upernet") else {}
    net = create_segmenter(f"{head}_test_resnet", 3, **arguments).double().eval()
    random = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_var, module.weight.data):
                values.uniform_(0.5, 2, generator=random)
            for values in (module.running_mean, module.bias.data):
                values.uniform_(-0.5, 0.5, generator=random)
    whole = deploy(net, 64)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.Dropout | nn.Dropout2d) for module in whole.modules())
    assert whole.auxiliary_head is None and (net.auxiliary_head is not None) == head.startswith("upernet")
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=random)
    with torch.no_grad():
        expected, found = net(images), whole(images)
    bound = 1e-9 if head != "upernet_gngf" else 1e-6  # the original's Fourier transform is in float32
    torch.testing.assert_close(found, expected, rtol=0, atol=bound * float(expected.abs().max()))


@pytest.mark.parametrize("size", [(7, 12), (2, 3), (6, 1)])
def test_a_pool_as_products_is_the_adaptive_one(size):
    maps = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    for rows, columns in ((1, 1), (2, 3), (6, 6)):
        torch.testing.assert_close(ProductPool(rows, columns)(maps), nn.AdaptiveAvgPool2d((rows, columns))(maps))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": "executorch", "dynamic": True}, "ExecuTorch takes images of one size"),
        ({"to": "torch", "with_preprocessing": True}, "--with-preprocessing"),
        ({"to": "torch", "dynamic": True, "spec": "mobilenetv2_x010"}, "--dynamic is for outputs that are maps"),
    ],
    ids=str,
)
def test_what_cannot_be_exported_is_one_line(trained, tmp_path, options, said):
    with pytest.raises(OvertoneError, match=said) as refused:
        api.export(options.pop("spec", trained[1]), out=tmp_path / "export", **options)
    assert "\n" not in str(refused.value) and not (tmp_path / "export").exists()


def test_a_network_of_one_size_is_refused_at_any(tmp_path):
    net = create_segmenter("upernet_gngf_test_resnet", 3, head_args={"channels": 8}).eval()
    task = Segmentation(Setup(("a", "b", "c"), Recipe(data=config.Data(preprocess=Preprocess(size=64)))))
    form = task.export_form(net, None, any_size=True)
    origin = Origin("global filters", Preprocess(size=64), "a test", task="segmentation", form=form)
    with pytest.raises(OvertoneError, match=r"global filters takes images of one size.*without --dynamic"):
        export(net, origin, Request("torch", dynamic_size=True), tmp_path / "export")


def test_an_image_below_the_least_size_is_one_line(trained, tmp_path, capfd):
    root, run = trained
    api.export(run, "torch", tmp_path / "export", dynamic=True)
    assert main(["predict", str(tmp_path / "export"), str(root / "images" / "val" / "0.png")]) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert "(1, 3, 24, 32)" in error and "33" in error


def test_a_runtime_of_one_size_is_refused_for_a_run(trained, capfd):
    root, run = trained
    assert main(["evaluate", str(run), "--data.root", str(root), "--runtime", "executorch"]) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert "one size" in error and "export --to executorch" in error and "--dynamic" not in error


def test_settings_that_no_task_has_are_damage(trained, tmp_path):
    folder = api.export(trained[1], "torch", tmp_path / "export").folder
    about = json.loads((folder / "model.json").read_text())
    about["task_settings"]["stride"] = -1
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(OvertoneError, match=r"model\.json is damaged.*stride"):
        api.load(folder)


def test_tuned_and_measured(trained, tmp_path, capfd):
    run = trained[1]
    root = draw(draw(tmp_path / "large", 4, size=(90, 110)), 2, "val", size=(80, 66))
    words = (
        "--data.root",
        root,
        "--data.split",
        "val",
        "--runtimes",
        "torch",
        "--precisions",
        "float32",
        "--rounds",
        1,
    )
    found = printed(capfd, "tune", run, *words, "--max-loss", 100, "--out", tmp_path / "tuned")
    (candidate,) = found["candidates"]
    assert found["score_name"] == "mIoU" and candidate["reason"] is None and 0 <= candidate["score"] <= 100
    assert candidate["parity"]["same_decisions"] == 1 and (tmp_path / "tuned" / "run.py").is_file()
    # As the network sees whole images, so does what was tuned, where the runtime takes any size.
    assert json.loads((tmp_path / "tuned" / "model.json").read_text())["input"]["shape"] == [1, 3, None, None]
    measured = printed(capfd, "benchmark", run, "--runtime", "torch", "--rounds", 1, "--no-memory", "--size", 32)
    assert measured["rows"][0]["multiply_adds"] > 0 and not measured["left_out"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "precision", "dynamic"),
    [
        ("openvino", "float32", False),
        ("openvino", "int8", True),
        ("onnx", "int8", True),
        ("executorch", "float32", False),
    ],
)
def test_other_runtimes_and_precisions_agree(trained, tmp_path, capfd, runtime, precision, dynamic):
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    run = trained[1]
    root = draw(draw(tmp_path / "large", 6, size=(90, 110)), 2, "val", size=(80, 66))
    images = root / "images" / "train"
    size = None if dynamic else 64  # OpenVINO takes no pooling that is wider than its map
    done = api.export(
        run, runtime, tmp_path / "export", precision=precision, dynamic=dynamic, size=size, calibration=images
    )
    assert done.about.parity["agreement"] >= (1 if precision == "float32" else 0.85)
    words = ("--data.root", root, "--data.split", "val", "--run.workers", 0)
    assert 0 <= printed(capfd, "evaluate", done.folder, *words)["miou"] <= 100
    assert run_script(done.folder, root / "images" / "val" / "0.png", tmp_path / "alone").returncode == 0
    assert pixels(tmp_path / "alone" / "0.mask.png").shape == (80, 66)
