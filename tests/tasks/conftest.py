"""What the tests of the tasks start from; the processes of tests/engine are those of these tests too."""

import sys
from pathlib import Path

import pytest
from tagged_photos import COLOURS, draw_tagged, write_csv

sys.path.append(str(Path(__file__).parent.parent / "engine"))


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """A table of 30 images with a column of 0 and 1 for each of three labels; gives its path."""
    rows = draw_tagged(tmp_path / "photos")
    head: list[object] = ["image", *COLOURS]
    return write_csv(
        tmp_path / "photos" / "labels.csv", [head, *([name, *(int(c in tags) for c in COLOURS)] for name, tags in rows)]
    )
