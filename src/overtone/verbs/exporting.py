"""What `export` and `tune` share: the network of their options."""

from pathlib import Path

import torch

from overtone import options
from overtone.deployment.artifact import is_export
from overtone.errors import OvertoneError
from overtone.verbs.console import warn
from overtone.verbs.loading import introduce, loaded_for
from overtone.zoo import LoadedModel, num_outputs


def network_of(chosen: options.Export | options.Tune) -> LoadedModel:
    """The network, with what is known of it reported, and the threads of its arithmetic set.

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
    if not loaded.trained:
        warn(f"{loaded.architecture} has random weights: the export is of an untrained network")
    return loaded
