"""`evaluate`, `predict` and their functions run the deployed form where enough images repay it."""

import hashlib

import pytest

import overtone as product
from overtone import api
from overtone.deployment.running import fastest_form
from overtone.verbs import running

FEW = ("--run.workers", "0", "--run.threads", "1", "--run.device", "cpu")


@pytest.fixture
def deployed(monkeypatch):
    """What was deployed, where two images repay it."""
    found = []

    def recorded(model, size, *, any_size):
        found.append(fastest_form(model, size, any_size=any_size))
        return found[-1]

    for module in (running, api):
        monkeypatch.setattr(module, "MANY_IMAGES", 2)
        monkeypatch.setattr(module, "fastest_form", recorded)
    return found


def test_the_figures_are_those_of_the_network_as_it_was_trained(overtone, trained, deployed):
    contents = {path: hashlib.sha256(path.read_bytes()).digest() for path in (trained / "run").rglob("*.safetensors")}
    words = ("evaluate", trained / "run", trained / "photos", "--data.split", "all", "--json", *FEW)
    found = overtone(*words).json
    assert len(deployed) == 1
    expected = overtone(*words, "--no-deploy").json
    assert len(deployed) == 1
    same = ("top1", "confusion", "num_used")
    assert [found[key] for key in same] == [expected[key] for key in same]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    report = product.evaluate(trained / "run", trained / "photos", split="all", workers=0).report
    assert len(deployed) == 2 and report.score == found["top1"]
    product.evaluate(trained / "run", trained / "photos", split="all", workers=0, deploy=False)
    assert len(deployed) == 2
    assert contents == {path: hashlib.sha256(path.read_bytes()).digest() for path in contents}


def test_a_single_image_does_not_repay_deploying(overtone, trained, deployed):
    def probabilities(*words):
        found = overtone("predict", trained / "run", *words, "--top-k", "3", "--json", *FEW).json["images"]
        return [{one["class"]: one["probability"] for one in image["predictions"]} for image in found]

    alone = probabilities(trained / "photos" / "red" / "0.png")
    assert not deployed
    together = probabilities(trained / "photos" / "red")
    assert len(deployed) == 1 and together[0] == pytest.approx(alone[0], abs=1e-5)
    as_trained = probabilities(trained / "photos" / "red", "--no-deploy")
    assert len(deployed) == 1
    assert [max(one, key=one.get) for one in together] == [max(one, key=one.get) for one in as_trained]
    for one, other in zip(together, as_trained, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_a_loaded_network_predicts_deployed_and_stays_as_it_was_trained(trained, deployed):
    network = product.load(trained / "run", device="cpu")
    assert not deployed and all(parameter.requires_grad for parameter in network.model.parameters())
    paths = sorted((trained / "photos" / "red").iterdir())[:3]
    found = [network.predict(path, top_k=3) for path in paths]
    assert len(deployed) == 1 and deployed[0] is not network.model
    assert any(type(module).__name__ == "BatchNorm2d" for module in network.model.modules())
    own = product.load(trained / "run", device="cpu", deploy=False)
    for path, result in zip(paths, found, strict=True):
        expected = own.predict(path, top_k=3)
        assert [entry[:2] for entry in result.best] == [entry[:2] for entry in expected.best]
        assert result.best[0][2] == pytest.approx(expected.best[0][2], abs=1e-5)
    assert len(deployed) == 1
