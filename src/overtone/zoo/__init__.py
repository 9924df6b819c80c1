"""From a name or a path to a network with its weights: fetched, proved, read safely, recognised, loaded strictly.

`cache` and `fetch` find a published file, `proof` says whether it is that file, `reading` opens it without running
anything, `layouts` finds the state dict in it, `inference` tells the network by its shapes, `adapting` and `loading`
put it into one, and `resolver` does all of this for a name.
"""

from overtone.models.building import build, classifier_of, preprocess_of, published_row
from overtone.zoo.cache import cache_folder, file_name, weights_folders
from overtone.zoo.class_names import classes_of, names_of, num_outputs, published_classes, supposed_classes
from overtone.zoo.fetch import Located, fetch_published, find_published
from overtone.zoo.inference import Description, describe, infer_architecture
from overtone.zoo.layouts import State, inspect_state, read_state
from overtone.zoo.loading import load_state
from overtone.zoo.proof import Digests, Proof, UnverifiedWarning, digests, identify, prove
from overtone.zoo.reading import FileContents, inspect_file
from overtone.zoo.resolver import (
    BEST,
    LAST,
    LoadedModel,
    build_for_training,
    checkpoint_path,
    load_model,
    load_pretrained,
    load_weights,
    no_weights,
    read_state_dict,
)
from overtone.zoo.writing import published_layout, write_published

__all__ = [
    "BEST",
    "LAST",
    "Description",
    "Digests",
    "FileContents",
    "LoadedModel",
    "Located",
    "Proof",
    "State",
    "UnverifiedWarning",
    "build",
    "build_for_training",
    "cache_folder",
    "checkpoint_path",
    "classes_of",
    "classifier_of",
    "describe",
    "digests",
    "fetch_published",
    "file_name",
    "find_published",
    "identify",
    "infer_architecture",
    "inspect_file",
    "inspect_state",
    "load_model",
    "load_pretrained",
    "load_state",
    "load_weights",
    "names_of",
    "no_weights",
    "num_outputs",
    "preprocess_of",
    "prove",
    "published_classes",
    "published_layout",
    "published_row",
    "read_state",
    "read_state_dict",
    "supposed_classes",
    "weights_folders",
    "write_published",
]
