"""What the tests of the data package start from."""

from pathlib import Path

import pytest
from images_on_disk import make_images


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    """Ten cats and fourteen dogs."""
    return make_images(tmp_path / "pets", {"cat": 10, "dog": 14})
