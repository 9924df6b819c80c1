"""What a run writes down about itself: the manifest of its checkpoints, its description, its first lines, a fault."""

import json
from pathlib import Path

from overtone.checkpoint import Manifest, write_text
from overtone.config import AUTO, Recipe, Run, to_dict
from overtone.data.sources import Splits
from overtone.engine import folder as files
from overtone.engine import saver
from overtone.engine.distributed import World
from overtone.engine.optim import total_epochs
from overtone.engine.placement import Placement
from overtone.engine.state import State
from overtone.engine.step import NotFinite, Trainer


def manifest_of(recipe: Recipe, splits: Splits, digest: str | None) -> Manifest:
    """What the checkpoints of a run say of the network; `digest` is that of its samples."""
    return Manifest(
        architecture=recipe.model.name.partition(".")[0],
        labels=tuple(splits.train.labels),
        preprocess=recipe.data.preprocess,
        model_args=dict(recipe.model.args),
        recipe=to_dict(recipe),
        versions=saver.versions(),
        task=recipe.task,
        head=recipe.model.head,
        split={"seeded": splits.seeded, "origin": splits.origin, "digest": digest},
    )


def write_description(folder: Path, name: str, recipe: Recipe, run: Run, manifest: Manifest) -> None:
    """Write `recipe.json`: what the run is."""
    record = {
        "name": name,
        "recipe": to_dict(recipe),
        "run": to_dict(run),
        "versions": manifest.versions,
        "classes": list(manifest.labels),
        "split": manifest.split["origin"],
    }
    write_text(folder / files.RECIPE, json.dumps(record, indent=2) + "\n")


def announcement(
    recipe: Recipe, run: Run, folder: Path, splits: Splits, trainer: Trainer, placement: Placement, world: World
) -> str:
    """The first lines of a run: model, images, schedule, device, folder."""
    total = sum(parameter.numel() for parameter in trainer.model.parameters())
    trained = sum(parameter.numel() for parameter in trainer.parameters)
    only = "" if trained == total else f", {trained / 1e6:.3g} M of them trained"
    start = f", from {recipe.model.weights}" if recipe.model.weights else ""
    micro = f" in parts of {run.micro_batch}" if run.micro_batch else ""
    together = "" if world.is_alone else f"{world.size} processes, each "
    test = "" if splits.test is None else f", {len(splits.test):,} to measure the best network on at the end"
    optim, steps = recipe.optim, -(-len(splits.train) // recipe.train.batch_size)
    total_steps = "" if recipe.train.steps is None else f" ({recipe.train.steps:,} in all)"
    return (
        f"model   {recipe.model.name}, {total / 1e6:.3g} M parameters{only}{start}\n"
        f"images  {len(splits.train):,} to train, {len(splits.val):,} to validate{test}, "
        f"{len(splits.train.labels)} classes; {splits.origin}\n"
        f"train   {total_epochs(recipe, steps)} epochs of {steps} steps{total_steps} of {recipe.train.batch_size} "
        f"images{micro} at {recipe.data.preprocess.size} px; {optim.name}, lr {optim.lr:g}, {recipe.schedule.name}\n"
        f"{_augmentation(recipe)}"
        f"on      {together}{placement}{', compiled' if run.compile else ''}\n"
        f"folder  {folder}"
    )


def _augmentation(recipe: Recipe) -> str:
    """A line about the augmentation that was chosen for a recipe; nothing where it was given."""
    augment = recipe.augment
    if augment.strength != AUTO:
        return ""
    mixed = f", cutmix of {augment.mix_prob:.0%} of the batches" if augment.cutmix else ""
    return (
        f"augment auto, for {recipe.train.epochs} epochs: crops from {augment.scale[0]:.0%} of the area, "
        f"colour jitter {augment.color_jitter:g}{mixed}\n"
    )


def write_fault(path: Path, error: NotFinite, splits: Splits, state: State) -> None:
    """Write the step that was not finite and its samples, for inspection."""
    images = [{"id": position, "path": splits.train.name(position)} for position in error.ids]
    place = {"step": error.step, "epoch": state.epoch + 1, "rank": error.rank}
    write_text(path, json.dumps(place | {"loss": str(error.loss), "images": images}, indent=2) + "\n")
