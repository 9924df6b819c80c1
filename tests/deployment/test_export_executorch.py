"""One network of each family in ExecuTorch (its lowering takes most of these tests' time), and int8 by PT2E."""

import numpy as np
import pytest
from exported_nets import FAMILIES, images_in, inputs, logits_of, needs, net_of, origin, plain_net
from test_export import check_script

from overtone.deployment.export import Request, export, open_export


@pytest.fixture(autouse=True)
def executorch():
    needs("executorch")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_it_says_what_the_network_says(family, tmp_path):
    net = net_of(FAMILIES[family])
    about = export(net, origin(FAMILIES[family]), Request("executorch", checked=2), tmp_path / "export")
    assert about.parity["largest"] <= 1e-4 and about.parity["same_decisions"] == 1
    predictor, _ = open_export(tmp_path / "export")
    expected = logits_of(net, 3)
    np.testing.assert_allclose(predictor.predict(inputs(3)), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_int8_with_the_normalisation_in_the_graph(tmp_path):
    images = images_in(tmp_path / "images", 24)
    request = Request("executorch", "int8", image_folder=images, checked=8, with_preprocessing=True)
    about = export(plain_net(), origin(), request, tmp_path / "export")
    assert about.input.kind == "pixels"
    assert about.parity["rms"] <= 0.3 and about.parity["agreement"] >= 0.85
    assert about.parity["largest"] > 1e-6, "nothing was made smaller"
    check_script(tmp_path / "export")
