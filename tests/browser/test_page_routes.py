"""What the routes of the page give, and what they never give: files that are not of a known run, paths."""

import json
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from written_runs import add_epoch, add_images, write_run

from overtone.errors import OvertoneError
from overtone.reports.explorer import points
from overtone.serving.errors import handle_errors
from overtone.serving.explorer_file import explorer_html
from overtone.serving.pages import page_routes


def client(root: Path | None) -> TestClient:
    """A client of the routes alone; a stream of events ends after one list."""
    app, asked = FastAPI(), iter([True])
    handle_errors(app)
    app.include_router(page_routes(root, lambda: next(asked, False)))
    return TestClient(app)


def get(root: Path | None, path: str) -> httpx.Response:
    """The answer to one request."""
    return client(root).get(path)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with the runs `a` and `more/b`."""
    write_run(tmp_path / "runs" / "a", root=str(tmp_path / "photos"))
    write_run(tmp_path / "runs" / "more" / "b", lr=0.5)
    return tmp_path / "runs"


def test_runs_are_listed_and_compared(runs: Path) -> None:
    listed = get(runs, "/v1/runs").json()["runs"]
    assert [(run["name"], run["state"], run["best_score"], run["epoch"]) for run in listed] == [
        ("a", "finished", 53.0, 3),
        ("more/b", "finished", 53.0, 3),
    ]
    compared = get(runs, "/v1/runs-compared?run=more/b&run=a").json()
    assert [run["name"] for run in compared["runs"]] == ["more/b", "a"]
    assert compared["differences"]["optim.lr"] == [0.5, 0.1]
    assert compared["runs"][0]["rows"][2]["train_loss"] == pytest.approx(2 / 3)
    assert get(None, "/v1/runs").json() == {"folder": False, "runs": []}


def test_events_bring_the_list(runs: Path) -> None:
    text = get(runs, "/v1/runs-events").text
    kind, data = text.splitlines()[:2]
    assert kind == "event: runs"
    assert [run["name"] for run in json.loads(data.removeprefix("data: "))["runs"]] == ["a", "more/b"]


def test_a_figure_that_is_no_number_is_left_out(runs: Path) -> None:
    add_epoch(runs / "a", 4, train_loss=float("nan"), score=float("inf"))
    rows = get(runs, "/v1/runs-compared?run=a").json()["runs"][0]["rows"]
    assert rows[3]["train_loss"] is None
    assert get(runs, "/v1/runs").json()["runs"][0]["best_score"] is None
    assert "more/b" in [point["name"] for point in get(runs, "/v1/explorer").json()["points"]]


def test_the_most_confident_mistakes_come_first_with_their_images(runs: Path) -> None:
    assert get(runs, "/v1/runs/a/confusion").json()["counts"] == [[4, 1, 0], [2, 3, 0], [0, 0, 5]]
    samples = [("cat", "cat", 0.99), ("cat", "dog", 0.6), ("owl", "dog", 0.9), ("dog", "dog", 0.5)]
    paths = add_images(runs / "a", samples)
    found = get(runs, "/v1/runs/a/confusion").json()
    assert (found["classes"], found["counts"]) == (["cat", "dog", "owl"], [[1, 1, 0], [0, 1, 0], [0, 1, 0]])
    order = [(one["target"], one["predicted"], one["name"]) for one in found["samples"]]
    assert order[:2] == [("owl", "dog", "owl/2.png"), ("cat", "dog", "cat/1.png")]
    image = get(runs, f"/v1/runs/a/images/{found['samples'][0]['index']}")
    assert image.headers["content-type"] == "image/jpeg" and image.content.startswith(b"\xff\xd8")
    paths[2].write_bytes(b"root:x:0:0")  # whatever the file has become: only images are shown
    assert get(runs, "/v1/runs/a/images/2").status_code == 404
    assert get(runs, "/v1/runs/a/images/99").status_code == 404


def test_of_many_classes_the_worst_are_shown(runs: Path) -> None:
    names = [f"class {number:03}" for number in range(120)]
    counts = [[5 * (row == column) for column in range(120)] for row in range(120)]
    counts[100][3] = 7
    report = {"classes": names, "confusion": counts}
    (runs / "a" / "report.json").write_text(json.dumps(report), encoding="utf-8")
    found = get(runs, "/v1/runs/a/confusion").json()
    assert found["num_classes"] == 120 and len(found["classes"]) == len(found["counts"]) == 50
    assert found["samples"] == []
    row, column = found["classes"].index("class 100"), found["classes"].index("class 003")
    assert found["counts"][row][column] == 7
    (runs / "a" / "report.json").write_text(json.dumps(report | {"confusion": [[1]]}), encoding="utf-8")
    assert get(runs, "/v1/runs/a/confusion").status_code == 404


@pytest.mark.parametrize("name", ["..", "../secret", "%2e%2e/secret", "a/../../secret", "/etc", "more", "a%00", ""])
def test_only_known_runs_are_read(runs: Path, name: str) -> None:
    write_run(runs.parent / "secret")
    for path in (f"/v1/runs/{name}/confusion", f"/v1/runs/{name}/images/0", f"/v1/runs-compared?run={name}"):
        answer = get(runs, path)
        assert answer.status_code in (404, 422), path
        assert set(answer.json()) == {"error"}


def test_no_path_of_the_machine_is_given(runs: Path) -> None:
    add_images(runs / "a", [("cat", "dog", 0.6)])
    paths = ("runs", "runs-compared?run=a&run=more/b", "runs/a/confusion", "explorer")
    assert not [path for path in paths if str(runs.parent) in get(runs, f"/v1/{path}").text]


def test_the_points_of_the_explorer(runs: Path) -> None:
    report = {"machine": {"processor": "P"}, "rows": [row("hbonet_x100", 224, 9.5), row(str(runs / "a"), 64, 2.5)]}
    (runs / "speed").mkdir()
    (runs / "speed" / "benchmark.json").write_text(json.dumps(report), encoding="utf-8")
    (runs / "benchmark.json").write_text("{", encoding="utf-8")  # nobody asked for this one
    found = {point.name: point for point in points(runs)}
    published, run = found["hbonet_x100.dli14_in1k"], found["a"]
    assert (published.kind, published.benchmark, published.score) == ("published", "ImageNet-1K top-1", 73.1)
    assert published.multiply_adds == pytest.approx(305e6) and published.parameters == pytest.approx(4.56e6, rel=0.01)
    assert published.latency == {"torch, float32, batch 1, 2 threads, P": 9.5}
    assert (run.kind, run.family, run.benchmark, run.score) == ("run", "hbonet", "top-1 on photos", 53.0)
    assert run.latency == {"torch, float32, batch 1, 2 threads, P": 2.5}
    assert run.command == "overtone predict runs/a image.jpg"
    assert run.parameters is not None and run.parameters < published.parameters  # three classes, not a thousand
    with pytest.raises(OvertoneError, match=r"runs.benchmark\.json"):
        points(benchmarks=[runs / "benchmark.json"])


def row(model: str, size: int, milliseconds: float) -> dict[str, object]:
    """A row of a benchmark."""
    how = {"task": "inference", "runtime": "torch", "precision": "float32", "batch": 1, "threads": 2}
    return how | {"model": model, "size": size, "latency_ms": milliseconds}


def test_the_file_of_the_explorer_holds_all_and_loads_nothing() -> None:
    found = points()
    text = explorer_html(found)
    assert all(point.name in text for point in found) and len(found) > 60
    assert "import " not in text.partition('<script type="module">')[2].partition("</script>")[0].replace("import(", "")
    assert " src=" not in text and " href=" not in text
