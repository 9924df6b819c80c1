"""Every test of sources has a cache of its own."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of OVERTONE_CACHE."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("OVERTONE_CACHE", str(folder))
    return folder
