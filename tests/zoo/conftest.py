"""A cache of its own for every test, no network but this machine, and files made of our own small nets."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))  # for the deterministic numbers and the golden records

from file_server import FileServer


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("OVERTONE_CACHE", str(folder))
    monkeypatch.delenv("OVERTONE_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running
