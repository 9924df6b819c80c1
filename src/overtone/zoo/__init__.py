"""From a name or a path to a network with its weights: fetched, verified, read safely, inferred, loaded strictly.

`fetch` and `download` get a published file, `proof` says whether it is that file, `pickles` and `reading` open it
without running anything, `inference` finds the network by its shapes, `filling` builds it, `loading` puts the weights
in, `resolver` does all of this for a name, `hub` for a repository, `starting` for a training, and `class_names` names
the outputs.
"""

from overtone.checkpoint import BEST, LAST
from overtone.models.building import build, classifier_of, preprocess_of, published_row
from overtone.zoo.class_names import classes_of, names_of, num_outputs, published_classes, supposed_classes
from overtone.zoo.fetch import Located, fetch_published, find_published
from overtone.zoo.filling import LoadedModel
from overtone.zoo.inference import Description, describe, infer_architecture
from overtone.zoo.loading import load_state, nonfinite, published_layout, write_published
from overtone.zoo.proof import (
    Digests,
    Proof,
    UnverifiedWarning,
    cache_folder,
    digests,
    file_name,
    identify,
    verify,
    weights_folders,
)
from overtone.zoo.reading import FileContents, State, inspect_file, inspect_state, read_state
from overtone.zoo.resolver import checkpoint_path, load_model, read_state_dict
from overtone.zoo.starting import build_for_training, fitted_to_weights, load_pretrained, load_weights, no_weights
from overtone.zoo.task_of import task_of

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
    "fitted_to_weights",
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
    "nonfinite",
    "num_outputs",
    "preprocess_of",
    "published_classes",
    "published_layout",
    "published_row",
    "read_state",
    "read_state_dict",
    "supposed_classes",
    "task_of",
    "verify",
    "weights_folders",
    "write_published",
]
