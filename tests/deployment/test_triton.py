"""A model repository: its configuration by the published schema, and its network by ONNX Runtime."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from overtone.cli import main
from overtone.deployment.triton import backend_for

pytest.importorskip("onnxscript")
SIZE = 64


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one network."""
    folder = tmp_path_factory.mktemp("repository")
    words = ["export", "hbonet_x010", "--to", "triton", "--size", str(SIZE), "--threads", "1", "--out", str(folder)]
    assert main(words) == 0
    return folder


def parsed(text: str) -> dict[str, object]:
    """The text of a protobuf message of names, braces and brackets, as nested lists of pairs; see the schema's test."""
    tokens = re.findall(r'"[^"]*"|[\w.-]+|[{}\[\]:,]', text)

    def value(at: int) -> tuple[object, int]:
        if tokens[at] == "{":
            return message(at + 1, "}")
        if tokens[at] == "[":
            items, at = [], at + 1
            while tokens[at] != "]":
                item, at = value(at)
                items.append(item)
                at += tokens[at] == ","
            return items, at + 1
        return json.loads(tokens[at]) if tokens[at][0] in '"-0123456789' else tokens[at], at + 1

    def message(at: int, end: str | None) -> tuple[dict[str, object], int]:
        fields: dict[str, object] = {}
        while at < len(tokens) and tokens[at] != end:
            name, at = tokens[at], at + 1
            fields[name], at = value(at + (tokens[at] == ":"))
        return fields, at + 1

    return message(0, None)[0]


def test_the_configuration_says_what_the_network_takes_and_gives(repository: Path) -> None:
    folder = repository / "hbonet_x010"
    config = parsed((folder / "config.pbtxt").read_text())
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("hbonet_x010", "onnxruntime", 16)
    assert config["input"] == [{"name": "images", "data_type": "TYPE_FP32", "dims": [3, SIZE, SIZE]}]
    assert config["output"] == [{"name": "logits", "data_type": "TYPE_FP32", "dims": [1000]}]
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": 3000}
    assert (folder / "1" / str(config["default_model_filename"])).is_file()
    note = (folder / "preprocessing.md").read_text()
    assert f"(N, 3, {SIZE}, {SIZE})" in note and "0.485" in note
    about = json.loads((folder / "model.json").read_text())
    assert about["parity"]["largest"] < 1e-4


def test_the_configuration_is_one_of_the_published_schema(repository: Path) -> None:
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format  # noqa: PLC0415

    text = (repository / "hbonet_x010" / "config.pbtxt").read_text()
    config = text_format.Parse(text, schema.ModelConfig())
    assert config.name == "hbonet_x010" and config.dynamic_batching.max_queue_delay_microseconds == 3000
    assert list(config.input[0].dims) == [3, SIZE, SIZE] and config.output[0].data_type == schema.TYPE_FP32


def test_the_network_runs_in_batches_and_gives_its_logits(repository: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = repository / "hbonet_x010" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)
    (logits,) = session.run(["logits"], {"images": images})
    assert logits.shape == (3, 1000)
    alone = np.concatenate([session.run(["logits"], {"images": image[None]})[0] for image in images])
    np.testing.assert_allclose(logits, alone, atol=1e-5)


def test_another_network_joins_a_repository_and_nothing_foreign_is_replaced(
    repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "hbonet_x010", "--to", "triton", "--size", str(SIZE), "--out", str(repository)]
    assert main(words) == 2 and "--overwrite" in capfd.readouterr().err
    mine = repository / "hbonet_x010" / "1" / "mine.txt"
    mine.write_text("mine")
    assert main([*words, "--overwrite"]) == 2 and "mine.txt" in capfd.readouterr().err
    assert mine.read_text() == "mine"
    mine.unlink()


def test_precisions_choose_the_back_end() -> None:
    found = {precision: backend_for(precision) for precision in ("float32", "int8", "bfloat16", "int8+bfloat16")}
    assert found == {"float32": "onnx", "int8": "onnx", "bfloat16": "openvino", "int8+bfloat16": "openvino"}
