"""`overtone report`: what is written, and what is refused before that."""

import pytest


def test_the_explorer_is_one_file(overtone, tmp_path):
    out = tmp_path / "explorer.html"
    outcome = overtone("report", "explorer", "--out", out)
    assert outcome.code == 0 and "published networks, 0 runs" in outcome.err
    assert "hbonet_x100.dli14_in1k" in out.read_text(encoding="utf-8")
    assert "--overwrite" in overtone("report", "explorer", "--out", out).error
    assert overtone("report", "explorer", "--out", out, "--overwrite").code == 0


@pytest.mark.parametrize("words", [["nothing"], ["explorer", "--runs", "no"], ["explorer", "--benchmarks", "no.json"]])
def test_what_is_not_there_is_named(overtone, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    assert words[-1] in overtone("report", *words).error
    assert list(tmp_path.iterdir()) == []
