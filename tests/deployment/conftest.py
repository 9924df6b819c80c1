"""The user's record of trusted files lies in a temporary folder."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def trusted_here(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERTONE_TRUST_DIR", str(tmp_path_factory.mktemp("trusted")))
        yield
