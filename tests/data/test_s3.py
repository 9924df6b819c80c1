"""Shards in a bucket of S3, served on this machine by moto."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made_shards import write_folders

from overtone import api
from overtone.checkpoint import read_checkpoint
from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Run, Train
from overtone.data.natural_parts import natural_parts
from overtone.data.packing import Packing, pack
from overtone.data.sources import open_evaluation
from overtone.engine.training import train
from overtone.errors import OvertoneError

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    values = {
        "ENDPOINT_URL": f"http://{host}:{port}",
        "ACCESS_KEY_ID": "k",
        "SECRET_ACCESS_KEY": "s",
        "REGION": "us-east-1",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs = importlib.import_module("s3fs")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield "s3://bucket"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_trained_and_measured_from_a_bucket(tmp_path: Path, bucket: str, cache: Path) -> None:
    for part in ("train", "val"):
        write_folders(tmp_path / "photos" / part, each=4)
    shards = tmp_path / "shards"
    pack(natural_parts(Data(root=tmp_path / "photos"), "label"), shards, Packing(size_mb=0.02))
    store = importlib.import_module("s3fs").S3FileSystem()
    store.put(str(shards), f"{bucket}/shards", recursive=True)
    weights, losses = [], []
    for number, root in enumerate((str(shards), f"{bucket}/shards")):
        recipe = Recipe(
            model=Model(name="mobilenetv2_x010"),
            data=Data(root=Path(root), preprocess=Preprocess(size=32)),
            augment=Augment(crop="none"),
            optim=Optim(lr=0.01),
            train=Train(epochs=1, batch_size=6),
        )
        out = tmp_path / f"run{number}"
        train(recipe, Run(out=out, workers=0, plots=False, tensorboard=False), "s3")
        weights.append(read_checkpoint(out / "last.safetensors").weights)
        losses.append(api.evaluate(out, Path(root), workers=0).report.loss)
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0]) and losses[0] == losses[1]
    assert len(list((cache / "data" / "shards").glob("*.tar"))) == len(list(shards.glob("*.tar")))
    local, ranged = (
        open_evaluation(Data(root=Path(root), cache_gb=0.0), "label", "all") for root in (shards, f"{bucket}/shards")
    )
    assert [local.read(n) for n in range(len(local))] == [ranged.read(n) for n in range(len(ranged))]
    first = min(shards.glob("train-*.tar"))
    store.pipe(f"{bucket}/shards/{first.name}", first.read_bytes()[:-1] + b"?")
    with pytest.raises(OvertoneError, match=r"SHA256|max[_-]bad[_-]fraction"):
        train(recipe, Run(out=tmp_path / "altered", workers=0, plots=False, tensorboard=False), "s3")
    with pytest.raises(OvertoneError, match="s3://bucket/gone"):
        api.evaluate(tmp_path / "run0", Path(f"{bucket}/gone"), workers=0)
