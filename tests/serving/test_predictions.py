"""What is answered is what `overtone predict` says of the same image, for every task, however requests are gathered."""

import asyncio
import base64
import io

import httpx
import numpy as np
import pytest
from PIL import Image
from small_server import LABELS, encoded, get, loaded, post, served, talk

from overtone.data.sources import MemoryImages
from overtone.engine.inference import Computing, ready
from overtone.engine.prediction import predict
from overtone.serving.app import create_app
from overtone.serving.limits import Limits
from overtone.serving.models import Served, unique_names


def expected(content: bytes, top_k: int, **kind: str) -> dict:
    """What the engine says, without the server."""
    network = loaded(**kind)
    source = MemoryImages([Image.open(io.BytesIO(content))], LABELS)
    inference = ready(network, LABELS, Computing(device="cpu", threads=1, workers=0))
    (found,) = next(iter(predict(inference, source, top_k, [], str)))
    return found.prediction.to_dict()


def test_a_raw_body_and_a_form_give_what_the_engine_gives(small: Served) -> None:
    app, image = create_app([small]), encoded(kind="PNG")
    raw = post(app, "/v1/predict?top_k=2", content=image, headers={"Content-Type": "image/png"}).json()
    (one,) = raw["images"]
    (wanted,) = (expected(image, 2)["predictions"],)
    assert [answer["class"] for answer in one["predictions"]] == [answer["class"] for answer in wanted]
    np.testing.assert_allclose(
        [answer["probability"] for answer in one["predictions"]],
        [answer["probability"] for answer in wanted],
        atol=1e-5,
    )
    assert (one["width"], one["height"], raw["model"], raw["task"]) == (40, 30, "small", "classification")
    assert set(one["milliseconds"]) == {"decode", "queue", "compute", "answer"}
    files = [("image", (f"../{n}.png", image if n else b"not an image", "image/png")) for n in range(3)]
    answers = post(app, files=files).json()["images"]
    assert [answer["name"] for answer in answers] == ["0.png", "1.png", "2.png"]
    assert answers[0]["status"] == 400 and "known format" in answers[0]["error"]
    assert answers[1]["predictions"] == answers[2]["predictions"]


def test_requests_are_gathered_and_each_gets_its_own_answer(small: Served) -> None:
    app = create_app([small], Limits(max_batch=8, max_wait_ms=200, decoders=1))
    images = [encoded(seed=seed) for seed in range(12)]

    async def conversation(client: httpx.AsyncClient) -> list[httpx.Response]:
        asked = (client.post(f"/v1/predict?top_k={1 + at % 3}", content=image) for at, image in enumerate(images))
        return await asyncio.gather(*asked)

    answers = [response.json()["images"][0] for response in talk(app, conversation)]
    assert max(answer["batch"] for answer in answers) > 1
    for at, (image, answer) in enumerate(zip(images, answers, strict=True)):
        assert len(answer["predictions"]) == 1 + at % 3
        best = expected(image, 1)["predictions"][0]
        assert answer["predictions"][0]["class"] == best["class"]
        assert answer["predictions"][0]["probability"] == pytest.approx(best["probability"], abs=1e-5)


def test_masks_of_a_segmentation_come_as_png_and_as_run_lengths() -> None:
    app, image = create_app([served(task="segmentation", head="lraspp")]), encoded(50, 40, "PNG")
    (answer,) = post(app, content=image).json()["images"]
    shares = expected(image, 5, task="segmentation", head="lraspp")["predictions"]
    mask = Image.open(io.BytesIO(base64.b64decode(answer["mask"]["data"])))
    indices = np.asarray(mask)
    assert mask.size == (50, 40) and mask.mode == "P"
    for found, wanted in zip(answer["predictions"], shares, strict=True):
        assert found["label"] == wanted["label"] and found["colour"].startswith("#")
        assert (indices == found["index"]).sum() == found["pixels"] == pytest.approx(wanted["pixels"], abs=2)
    (answer,) = post(app, "/v1/predict?masks=rle", content=image).json()["images"]
    for found in answer["predictions"]:
        counts = found["segmentation"]["counts"]
        values = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(50, 40).T
        assert (values == (indices == found["index"])).all()
    assert "mask" not in post(app, "/v1/predict?masks=none", content=image).json()["images"][0]


def test_boxes_of_a_detection_are_those_of_the_engine() -> None:
    app, image = create_app([served(task="detection", head="ssdlite")]), encoded(64, 48, "PNG")
    (answer,) = post(app, content=image).json()["images"]
    wanted = expected(image, 5, task="detection", head="ssdlite")
    assert (answer["width"], answer["height"]) == (64, 48)
    assert len(answer["predictions"]) == len(wanted["predictions"])
    for found, one in zip(answer["predictions"], wanted["predictions"], strict=True):
        assert found["label"] == one["label"]
        np.testing.assert_allclose(found["box"], one["box"], atol=1e-2)


def test_several_models_by_name_and_what_is_said_of_them(small: Served) -> None:
    app = create_app([small, served("tags", task="multilabel")])
    about = get(app, "/v1/models")
    assert [(model["name"], model["task"]) for model in about.json()["models"]] == [
        ("small", "classification"),
        ("tags", "multilabel"),
    ]
    assert about.json()["models"][0]["labels"] == list(LABELS) and about.json()["models"][0]["parameters"] > 1000
    assert "secret" not in about.text
    assert post(app, "/v1/predict?model=tags", content=encoded()).json()["model"] == "tags"
    response = post(app, "/v1/predict?model=none", content=encoded())
    assert response.status_code == 404 and "small, tags" in response.json()["error"]
    assert unique_names(["runs/a", "other/a/", "hf-hub:x/y z"]) == ["a", "a-2", "y-z"]


def test_heat_maps_are_made_by_what_is_given_or_refused_clearly(small: Served) -> None:
    response = post(create_app([small]), "/v1/explain", content=encoded())
    assert response.status_code == 501 and "heat map" in response.json()["error"]
    app = create_app([small], explain=lambda model, image, label: f"{model.name} {label}".encode())
    response = post(app, "/v1/explain?label=2", content=encoded())
    assert response.content == b"small 2" and response.headers["content-type"] == "image/png"
    assert post(app, "/v1/explain?label=3", content=encoded()).status_code == 422
    assert post(app, "/v1/explain", content=b"x").status_code == 400


def test_metrics_count_stages_batches_and_errors(small: Served) -> None:
    app = create_app([small])

    async def conversation(client: httpx.AsyncClient) -> str:
        await client.post("/v1/predict", content=encoded())
        await client.post("/v1/predict", content=b"")
        await client.get("/some/other/path")
        return (await client.get("/metrics")).text

    text = talk(app, conversation)
    for stage in ("read", "decode", "queue", "compute", "answer"):
        assert f'overtone_stage_seconds_count{{model="small",stage="{stage}"}}' in text
    assert 'overtone_batch_images_count{model="small"} 1.0' in text
    assert 'overtone_queue_images{model="small"} 0.0' in text
    assert 'overtone_errors_total{status="400"} 1.0' in text
    assert 'overtone_requests_total{route="/v1/predict",status="200"} 1.0' in text
    assert "some/other" not in text


def test_the_schema_is_a_page_from_here_alone(small: Served) -> None:
    response = get(create_app([small]), "/docs")
    assert "/v1/predict" in response.text and "/v2/models/{name}/infer" in response.text and "top_k" in response.text
    assert "http" not in response.text.replace("https://", "http://").replace("http-equiv", "") and "<script" not in (
        response.text
    )
    assert "default-src 'none'" in response.headers["content-security-policy"]
