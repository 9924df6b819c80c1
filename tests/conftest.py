"""What every test has: a record of trusted files of its own session, not the user's."""

import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: drives a real browser; skipped where there is none")


@pytest.fixture(scope="session", autouse=True)
def trusted_here(tmp_path_factory):
    """The record of trusted files lies in a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERTONE_TRUST_DIR", str(tmp_path_factory.mktemp("trusted")))
        yield
