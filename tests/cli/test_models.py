"""`overtone models`: the table of architectures."""

import subprocess
import sys

import pytest
import timm

from overtone import architectures, create_model, list_models
from overtone.architectures import Size
from overtone.errors import OvertoneError
from overtone.models.multiply_adds import count_multiply_adds
from overtone.published import rows_of
from overtone.reports.measured_sizes import measure


def test_the_figures_are_those_of_the_network(overtone):
    rows = {row["name"]: row for row in overtone("models", "*_x010", "--json").json}
    assert set(rows) == {"hbonet_x010", "mobilenetv2_x010"}
    for name, row in rows.items():
        model = create_model(name)
        assert row["parameters"] == sum(p.numel() for p in model.parameters())
        assert row["multiply_adds"] == count_multiply_adds(model, (3, 224, 224))
        assert row["resolution"] == 224
        assert row["published"][0]["top1"] == max(r.top1 for r in rows_of(name) if r.top1 is not None)


def test_families_of_every_kind_can_be_followed(overtone):
    wanted = ("harm_vgg16_bn", "hornet_tiny_gf", "harm_wrn16_4_level2", "harm_resnet50_progressive")
    rows = {name: overtone("models", name, "--json").json[0] for name in wanted}
    assert rows["harm_wrn16_4_level2"]["resolution"] == 32
    assert rows["harm_wrn16_4_level2"]["multiply_adds"] > 1e8
    assert rows["harm_resnet50_progressive"]["published"][0]["top1"] == 76.88
    assert rows["hornet_tiny_gf"]["multiply_adds"] == pytest.approx(3.9e9, rel=0.01)


def test_timm_models_on_request(overtone):
    rows = overtone("models", "resnet18", "--timm", "--json").json
    assert {"resnet18", "harm_resnet18"} <= {row["name"] for row in rows}
    assert next(row for row in rows if row["name"] == "resnet18")["multiply_adds"] == 1_814_073_344
    assert "give a narrower pattern" in overtone("models", "--timm").error


def test_the_table(overtone):
    outcome = overtone("models", "hbonet_x0[13]*")
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["model", "parameters", "multiply-adds", "resolution", "published", "top-1"]
    assert [line.split()[0] for line in lines[1:]] == ["hbonet_x010", "hbonet_x035"]
    assert lines[2].split()[1:] == ["2.15", "M", "60.9", "M", "224", "62.40"]


def test_list_models():
    assert list_models("mobilenetv2_*") == [f"mobilenetv2_x{w}" for w in ("010", "025", "035", "050", "075", "100")]
    assert "harm_vgg16_bn" in list_models("vgg")
    assert "vgg16" not in list_models("vgg") and "vgg16" in list_models("vgg", with_timm=True)


def test_create_model():
    assert create_model("hbonet_x010", num_classes=3).num_classes == 3
    assert create_model("resnet18", num_classes=3).num_classes == 3
    with pytest.raises(OvertoneError, match="hbonet_x010"):
        create_model("hbonet_x01")


def test_listing_needs_no_torch():
    script = (
        "import sys; from overtone.cli import main; code = main(['models', 'hbonet_*'])\n"
        "assert code == 0 and not {'torch', 'timm', 'numpy', 'PIL'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_generated_data_has_every_architecture():
    """After a change of a family: `make architectures`."""
    assert list(architectures.sizes()) == list_models()
    assert architectures.is_complete()


@pytest.mark.slow
def test_the_generated_data_is_right():
    assert {name: measure(name) for name in list_models()} == architectures.sizes()


def test_an_architecture_that_the_data_lacks_is_measured(overtone, monkeypatch):
    without = {name: size for name, size in architectures.sizes().items() if name != "hbonet_x010"}
    monkeypatch.setattr(architectures, "sizes", lambda: without)
    assert not architectures.is_complete()
    (row,) = overtone("models", "hbonet_x010", "--json").json
    assert row["parameters"] == sum(p.numel() for p in timm.create_model("hbonet_x010").parameters())


def test_a_family_that_the_data_lacks_is_noticed_without_its_import(tmp_path, monkeypatch):
    for name in (*architectures.families(), "another"):
        (tmp_path / f"{name}.py").write_text("from timm.models import register_model")
    (tmp_path / "_private.py").write_text("register_model")
    (tmp_path / "measure.py").write_text("")
    monkeypatch.setattr(architectures, "_FAMILIES", tmp_path)
    assert "another" in architectures.families() and "measure" not in architectures.families()
    assert not architectures.is_complete()


def test_counts_that_cannot_be_made_are_left_out(overtone, monkeypatch):
    monkeypatch.setattr(architectures, "sizes", lambda: {"hbonet_x010": Size(1, None, 224)})
    monkeypatch.setattr(architectures, "is_complete", lambda: True)
    assert overtone("models", "hbonet_x010").out.splitlines()[1].split()[:4] == ["hbonet_x010", "0.00", "M", "224"]
