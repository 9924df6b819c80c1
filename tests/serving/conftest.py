"""A classifier that every test of the server starts from."""

import pytest
from small_server import served

from overtone.serving.models import Served


@pytest.fixture(scope="session")
def small() -> Served:
    """A classifier of three colours."""
    return served()
