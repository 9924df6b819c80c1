"""The Open Inference Protocol, as its clients speak it: metadata, JSON, bytes, and what is refused."""

import json
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from small_server import SIZE, get, post, served, talk

from overtone.serving.app import create_app
from overtone.serving.models import Served

PATH = "/v2/models/small/infer"
LENGTH = "Inference-Header-Content-Length"


def tensors(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)


def asked(images: np.ndarray, **more: Any) -> dict[str, Any]:
    one = {"name": "images", "shape": list(images.shape), "datatype": "FP32", "data": images.ravel().tolist()}
    return {"id": "7", "inputs": [one], **more}


def test_health_and_metadata(small: Served) -> None:
    app = create_app([small])

    async def conversation(client: httpx.AsyncClient) -> dict[str, Any]:
        paths = (
            "",
            "/health/live",
            "/health/ready",
            "/models/small",
            "/models/small/ready",
            "/models/small/versions/1",
        )
        return {path: (await client.get(f"/v2{path}")).json() for path in paths}

    found = talk(app, conversation)
    assert found[""]["name"] == "overtone" and "binary_tensor_data" in found[""]["extensions"]
    assert found["/health/live"]["live"] and found["/health/ready"]["ready"] and found["/models/small/ready"]["ready"]
    about = found["/models/small"]
    assert about["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, SIZE, SIZE]}]
    assert about["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]
    assert found["/models/small/versions/1"] == about
    assert get(app, "/v2/models/other").status_code == 404


def test_json_and_bytes_give_the_logits_of_the_network(small: Served) -> None:
    app, images = create_app([small]), tensors(2)
    with torch.inference_mode():
        wanted = small.loaded.model(torch.from_numpy(images)).numpy()
    answer = post(app, PATH, json=asked(images)).json()
    assert (answer["id"], answer["model_name"]) == ("7", "small")
    (output,) = answer["outputs"]
    assert (output["name"], output["shape"], output["datatype"]) == ("logits", [2, 3], "FP32")
    np.testing.assert_allclose(np.reshape(output["data"], (2, 3)), wanted, atol=1e-5)
    nested = asked(images) | {"inputs": [asked(images)["inputs"][0] | {"data": images.tolist()}]}
    assert post(app, PATH, json=nested).json() == answer

    request = asked(images, parameters={"binary_data_output": True})
    del request["inputs"][0]["data"]
    request["inputs"][0]["parameters"] = {"binary_data_size": images.nbytes}
    head = json.dumps(request).encode()
    response = post(app, PATH, content=head + images.tobytes(), headers={LENGTH: str(len(head))})
    end = int(response.headers[LENGTH])
    (output,) = json.loads(response.content[:end])["outputs"]
    assert output["parameters"]["binary_data_size"] == 24
    np.testing.assert_allclose(np.frombuffer(response.content[end:], "<f4").reshape(2, 3), wanted, atol=1e-5)


def test_a_detection_gives_its_three_outputs() -> None:
    app = create_app([served(task="detection", head="ssdlite")])
    answer = post(app, PATH, json=asked(tensors(1))).json()
    assert [output["name"] for output in answer["outputs"]] == ["boxes", "scores", "labels"]
    boxes, scores, _ = (output["shape"] for output in answer["outputs"])
    assert boxes == [scores[0], 4]
    assert post(app, PATH, json=asked(tensors(2))).status_code == 400


def _first(**change: Any) -> dict[str, Any]:
    request = asked(tensors(1))
    return request | {"inputs": [request["inputs"][0] | change]}


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        ({}, "protocol"),
        ([], "protocol"),
        ({"inputs": []}, "protocol"),
        ({"inputs": [1]}, "protocol"),
        ({"inputs": [{}]}, "protocol"),
        (_first(name="x"), "images"),
        (_first(datatype="INT8"), "FP32"),
        (_first(shape=[1, 3, SIZE, SIZE + 1]), "shape"),
        (_first(shape=[1 << 40, 3, SIZE, SIZE]), "larger"),
        (_first(shape=[-1, 3, SIZE, SIZE]), "shape"),
        (_first(shape="x"), "shape"),
        (_first(data=[1.0]), "protocol"),
        (_first(data=[[1], [2, 3]]), "protocol"),
        (_first(data=[[]] * 300_000), "nests"),
        (_first(data=["x"] * 3 * SIZE * SIZE), "protocol"),
        (asked(tensors(1), outputs=[{"name": "boxes"}]), "boxes"),
        (asked(tensors(1), outputs=7), "protocol"),
        (asked(tensors(1), parameters=[1]), "protocol"),
    ],
)
def test_other_requests_are_refused(small: Served, request_: Any, word: str) -> None:
    response = post(create_app([small]), PATH, json=request_)
    assert response.status_code in (400, 413) and word.lower() in response.json()["error"].lower(), response.text


def test_lengths_that_are_wrong_are_refused(small: Served) -> None:
    app = create_app([small])
    for length in ("9999999", "-1", "x", "²", "1" * 5000):
        response = post(app, PATH, content=b"{}", headers={LENGTH: length.encode()})
        assert response.status_code == 400, response.text
    assert post(app, PATH, content=b"[" * 100_000).status_code == 400
    infinite = np.full((1, 3, SIZE, SIZE), np.inf, dtype=np.float32)
    request = _first(data=None, parameters={"binary_data_size": infinite.nbytes})
    del request["inputs"][0]["data"]
    head = json.dumps(request).encode()
    response = post(app, PATH, content=head + infinite.tobytes(), headers={LENGTH: str(len(head))})
    assert response.status_code == 422 and "binary_data" in response.json()["error"]
