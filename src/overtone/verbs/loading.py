"""The network that a verb was asked for, and what is said of it."""

from pathlib import Path

from overtone import options, zoo
from overtone.deployment.artifact import is_export
from overtone.deployment.running import loaded_export
from overtone.engine.inference import Computing
from overtone.verbs.console import note, warn
from overtone.zoo import LoadedModel

_CHANNELS = 3


def loaded_for(
    chosen: options.Evaluate | options.Predict | options.Explain | options.Export | options.Tune,
    num_classes: int | None = None,
) -> LoadedModel:
    """The network that was asked for, with a first layer for images of three channels, which is what files give.

    Raises:
        OvertoneError: as `zoo.load_model`.
    """
    if is_export(Path(chosen.model)):
        return loaded_export(Path(chosen.model))

    def load(in_chans: int | None) -> LoadedModel:
        return zoo.load_model(
            chosen.model,
            architecture=chosen.architecture,
            num_classes=num_classes,
            in_chans=in_chans,
            ema=chosen.ema,
            weights_dir=chosen.weights_dir,
        )

    loaded = load(None)
    return loaded if getattr(loaded.model, "in_chans", _CHANNELS) == _CHANNELS else load(_CHANNELS)


def introduce(loaded: LoadedModel) -> None:
    """Say which weights these are, what verifies them, and what had to be assumed or adapted."""
    proof = loaded.proof
    # The first use of a file without a published hash has been said by a warning.
    if proof is not None and not (proof.kind == "first_use" and proof.expected is None):
        note(f"weights: {loaded.source}")
    for line in loaded.notes:
        note(f"weights: {line}")
    if not loaded.trained:
        warn(f"{loaded.architecture} has random weights: what follows is chance; give a run folder or a checkpoint")


def computing(settings: options.Device) -> Computing:
    """Where and with what a verb was asked to compute."""
    return Computing(
        settings.device, settings.precision, settings.threads, settings.batch_size, settings.workers, settings.size
    )
