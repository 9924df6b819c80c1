"""Small images, a trained run on them, and the command line called as a function."""

import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_photos import TINY, draw

from overtone import published
from overtone.cli import main
from overtone.published import Published
from overtone.zoo import proof as zoo_proof

sys.path.append(str(Path(__file__).parent.parent / "tasks"))  # for the boxes that are drawn there


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of a clear error."""
        assert self.code == 2, self.err
        assert self.err.startswith("overtone: error: ")
        assert self.err.count("\n") == 1
        return self.err


Overtone = Callable[..., Outcome]
Publish = Callable[[str, Path], Published]


@pytest.fixture
def overtone(capfd: pytest.CaptureFixture[str]) -> Overtone:
    """`overtone("models", "--json")` as a function."""

    def call(*words: object) -> Outcome:
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos/` (one folder of class folders) and `run/`, a network trained on it by a seeded split."""
    folder = tmp_path_factory.mktemp("trained")
    draw(folder / "photos", {"blue": 10, "green": 15, "red": 20})
    words = ["train", "scratch", "--data.root", str(folder / "photos"), "--run.out", str(folder / "run"), *TINY]
    assert main(words) == 0
    return folder


@pytest.fixture
def photos(trained: Path, tmp_path: Path) -> Path:
    """A copy of the images that may be changed."""
    return Path(shutil.copytree(trained / "photos", tmp_path / "photos"))


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Makes a file the published one of a row, by its hash."""

    def replace(name: str, path: Path) -> Published:
        content = path.read_bytes()
        row = dataclasses.replace(
            published._BY_NAME[name],
            git_blob_sha1=git_blob(content),
            sha256=None,
            sha256_prefix=None,
            size_bytes=len(content),
        )
        rows = tuple(row if known.full_name == name else known for known in published.PUBLISHED)
        monkeypatch.setattr(published, "_BY_NAME", {known.full_name: known for known in rows})
        for module in (published, zoo_proof):
            monkeypatch.setattr(module, "PUBLISHED", rows)
        return row

    return replace
