"""What `export` and `tune` share: the network of their options, and what will be written about it."""

from pathlib import Path

import torch

from overtone import options
from overtone.deployment.artifact import is_export
from overtone.deployment.export import Origin
from overtone.deployment.origin import origin_of
from overtone.errors import OvertoneError
from overtone.verbs.console import warn
from overtone.verbs.loading import introduce, loaded_for
from overtone.zoo import LoadedModel, classes_of, names_of, num_outputs


def prepared(chosen: options.Export | options.Tune) -> tuple[LoadedModel, Origin]:
    """The network, and what `model.json` will say of it.

    Raises:
        OvertoneError: no such model, or one without a classifier.
    """
    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    if is_export(Path(chosen.model)):
        raise OvertoneError(f"{chosen.model} is an export already; give the network that it was made from")
    loaded = loaded_for(chosen)
    num_outputs(loaded)
    introduce(loaded)
    classes = classes_of(loaded) if loaded.trained else None
    if not loaded.trained:
        warn(f"{loaded.architecture} has random weights: the export is of an untrained network")
    return loaded, origin_of(loaded, chosen.size, classes, None if classes is None else names_of(loaded))
