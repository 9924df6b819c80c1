"""A training reads shards as it reads files: it is resumed bitwise, and measured and predicted from anywhere."""

import json
from pathlib import Path

import pytest
import torch
from http_store import HttpStore
from made_shards import image_bytes, sample, write_folders, write_tar

from overtone import api, cli, create_model
from overtone.checkpoint import read_checkpoint
from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Run, Train
from overtone.data.natural_parts import natural_parts
from overtone.data.packing import Packing, pack
from overtone.engine.training import train
from overtone.errors import OvertoneError


def recipe(root: Path, **data: object) -> Recipe:
    return Recipe(
        model=Model(name="mobilenetv2_x010"),
        data=Data(root=root, preprocess=Preprocess(size=32), **data),  # type: ignore[arg-type]
        augment=Augment(crop="none"),
        optim=Optim(lr=0.01),
        train=Train(epochs=2, batch_size=6),
    )


def run_in(folder: Path, **settings: object) -> Run:
    return Run(out=folder, workers=0, plots=False, tensorboard=False, **settings)  # type: ignore[arg-type]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Packed shards with training and validation images; the images lie in `photos` beside."""
    for part in ("train", "val"):
        write_folders(tmp_path / "photos" / part, each=6)
    pack(natural_parts(Data(root=tmp_path / "photos"), "label"), tmp_path / "shards", Packing(size_mb=0.02))
    return tmp_path / "shards"


def test_resumed_bitwise(tmp_path: Path, shards: Path) -> None:
    train(recipe(shards), run_in(tmp_path / "whole"), "shards")
    train(recipe(shards), run_in(tmp_path / "parts", max_steps=4), "shards")
    train(recipe(shards), run_in(tmp_path / "parts"), "shards", resume=True)
    whole, parts = (read_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole.weights[key], parts.weights[key]) for key in whole.weights)


def test_measured_from_files_shards_and_a_store(tmp_path: Path, shards: Path) -> None:
    train(recipe(shards), run_in(tmp_path / "run"), "shards")
    with HttpStore(tmp_path) as store:
        roots = (tmp_path / "photos", shards, Path(f"{store.address}/shards"))
        reports = [api.evaluate(tmp_path / "run", root, workers=0).report for root in roots]
    assert reports[0].num_used == 18 and len({report.score for report in reports}) == 1
    assert reports[0].loss == pytest.approx(reports[1].loss, rel=1e-5) and reports[1].loss == reports[2].loss


def test_changed_shards_are_shown(tmp_path: Path, shards: Path) -> None:
    train(recipe(shards), run_in(tmp_path / "run", max_steps=4), "shards")
    write_tar(shards / "train-000009.tar", sample("new", 0, 0))
    with pytest.raises(OvertoneError, match=r"1 added \(train-000009\.tar#new\)"):
        train(recipe(shards), run_in(tmp_path / "run"), "shards", resume=True)


def test_bad_samples_are_counted(tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(shards / "train-000009.tar", [("new.jpg", b"no image"), ("new.cls", b"0")])
    with pytest.raises(OvertoneError, match=r"max[_-]bad[_-]fraction"):
        train(recipe(shards), run_in(tmp_path / "few"), "shards")
    train(recipe(shards, max_bad_fraction=0.2), run_in(tmp_path / "run"), "shards")
    assert "train-000009.tar#new" in capsys.readouterr().err + (tmp_path / "run" / "log.txt").read_text()


def test_evaluation_leaves_bad_samples_out_and_names_them(
    tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(recipe(shards), run_in(tmp_path / "run", max_steps=1), "shards")
    twice = [*sample("twice", 0, 0), *sample("between", 1, 1), *sample("twice", 0, 0)]
    wrong = [("text.jpg", b"no image"), ("text.cls", b"0"), ("bare.jpg", image_bytes("red", 1))]
    write_tar(shards / "val-000008.tar", [*twice, *wrong, *sample("zebra", 2, "zebra"), ("alone.cls", b"0")])
    cut = write_tar(shards / "val-000009.tar", [*sample("whole", 0, 0), *sample("lost", 1, 1)])
    cut.write_bytes(cut.read_bytes()[:2700])
    command = ["evaluate", str(tmp_path / "run"), str(shards), "--json", "--run.workers", "0"]
    assert cli.main(command) == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    named = {name.partition("#")[2] for name in found["bad"]}
    assert named == {"twice (again)", "text", "bare", "zebra", "alone", "(end)"}
    assert found["num_expected"] - found["num_used"] == len(named)
    assert all(f"val-000008.tar#{key} could not be read" in printed.err for key in ("text", "bare", "zebra", "alone"))
    assert cli.main([*command, "--allow-bad"]) == 0


def test_published_networks_know_the_wordnet_ids_of_shards(tmp_path: Path) -> None:
    wnids = ("n02110341", "n01440764", "n03478589")
    for at, colour in enumerate(write_folders(tmp_path / "photos", each=2).iterdir()):
        colour.rename(tmp_path / "photos" / wnids[at])
    pack(natural_parts(Data(root=tmp_path / "photos"), "label"), tmp_path / "packed", Packing())
    write_tar(tmp_path / "named" / "a.tar", [file for n in range(3) for file in sample(str(n), n, wnids[n])])
    torch.manual_seed(0)
    torch.save(create_model("mobilenetv2_x010").state_dict(), tmp_path / "mobilenetv2_0.1.pth")
    reports = [
        api.evaluate(
            tmp_path / "mobilenetv2_0.1.pth", tmp_path / form, workers=0, size=64, architecture="mobilenetv2_x010"
        )
        for form in ("photos", "packed", "named")
    ]
    folder, packed, named = (found.report for found in reports)
    assert packed.loss == pytest.approx(folder.loss, rel=1e-5) and packed.num_used == 6 and named.num_used == 3


def test_by_the_command_line(tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--model.name mobilenetv2_x010 --data.preprocess.size 32 --train.epochs 1 --train.batch-size 6"
    command = f"train scratch {shards} --run.out {tmp_path / 'run'} --run.workers 0 {words} --data.shuffle-shards 2"
    assert cli.main(command.split()) == 0
    (tmp_path / "one.jpg").write_bytes(image_bytes("red", 1))
    assert cli.main(["evaluate", str(tmp_path / "run"), str(shards), "--json", "--run.workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed[printed.index("{") :])
