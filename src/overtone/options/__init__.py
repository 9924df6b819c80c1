"""The options of each verb as frozen dataclasses of plain values: the source of `--help`, and the verb's argument.

The docstring under a field is its help text. No PyTorch is imported, so that `--help` is fast.
"""

from overtone.options.common import (
    TABLES,
    DataFolder,
    Device,
    EvaluationData,
    ExportPrecision,
    Hardware,
    InferenceSettings,
    ModelName,
    Precision,
    RuntimeName,
    Target,
)
from overtone.options.datasets import DataInfo, DataPack, DataVerify, PackedData, PrepareImageNet
from overtone.options.deployment import Benchmark, Export, Trust, Tune
from overtone.options.inference import Evaluate, Explain, Predict, Serve
from overtone.options.training import Compare, Demo, LaunchSlurm, Report, Runs, Training
from overtone.options.weights import (
    ImageNet,
    Models,
    Reproduce,
    WeightsConvert,
    WeightsFetch,
    WeightsInspect,
    WeightsList,
    WeightsVerify,
)

__all__ = [
    "TABLES",
    "Benchmark",
    "Compare",
    "DataFolder",
    "DataInfo",
    "DataPack",
    "DataVerify",
    "Demo",
    "Device",
    "Evaluate",
    "EvaluationData",
    "Explain",
    "Export",
    "ExportPrecision",
    "Hardware",
    "ImageNet",
    "InferenceSettings",
    "LaunchSlurm",
    "ModelName",
    "Models",
    "PackedData",
    "Precision",
    "Predict",
    "PrepareImageNet",
    "Report",
    "Reproduce",
    "Runs",
    "RuntimeName",
    "Serve",
    "Target",
    "Training",
    "Trust",
    "Tune",
    "WeightsConvert",
    "WeightsFetch",
    "WeightsInspect",
    "WeightsList",
    "WeightsVerify",
]
