"""The published weights at hand, and their measurements."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from overtone import zoo
from overtone.data.imagenet import NUM_CLASSES
from overtone.data.sources import ImageList
from overtone.engine.inference import Computing
from overtone.errors import OvertoneError
from overtone.published import Published, PublishedRow
from overtone.reproduction.accuracy import Measurement, check_outputs, fingerprint, measure, protocols_of

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
Say = Callable[[str], object]


class WeightsUnfit(OvertoneError):
    """A file that is at hand cannot be measured; others can."""


@dataclass(frozen=True)
class Loading:
    """Where weights come from.

    Attributes:
        weights_dir: folders to search beside the cache.
        fetch: whether to download what is not at hand.
    """

    weights_dir: tuple[Path, ...] = ()
    fetch: bool = False

    def locate(self, row: PublishedRow) -> zoo.Located | None:
        """Return the row's file, or None where there is none at hand.

        Raises:
            OvertoneError: the file is altered, or the download fails.
        """
        if not row.urls:
            return None
        located = zoo.find_published(row, self.weights_dir)
        return zoo.fetch_published(row, self.weights_dir) if located is None and self.fetch else located

    def load(self, row: Published, located: zoo.Located) -> zoo.LoadedModel:
        """Load the row's network with the 1000 outputs of ImageNet-1K, all of which those of ImageNet-22K contain.

        Raises:
            WeightsUnfit: the file cannot be read, does not fit, or has no classifier (OpenMMLab's copies of HorNet-L).
        """
        try:
            if not zoo.describe(located.path).num_classes:
                raise WeightsUnfit(
                    f"{located.path} has no classifier, so {row.full_name} cannot be measured with this copy"
                )
            reduced = None if row.num_classes == NUM_CLASSES else NUM_CLASSES
            loaded = zoo.load_model(row.full_name, num_classes=reduced, weights_dir=self.weights_dir)
            check_outputs(loaded, row)
        except WeightsUnfit:
            raise
        except OvertoneError as error:
            raise WeightsUnfit(str(error)) from error
        return loaded


def measurements_of(
    row: Published,
    located: zoo.Located,
    images: ImageList,
    known: Sequence[Measurement],
    loading: Loading,
    computing: Computing,
    *,
    progress: Progress,
    say: Say,
    warn: Say,
) -> Iterator[tuple[Measurement, tuple[str, ...]]]:
    """Yield a row's measurements, one per protocol, with the images that could not be read; reuse those in `known`.

    Raises:
        WeightsUnfit: as `Loading.load`.
    """
    before = {result.key: result for result in known}
    weights, data = zoo.digests(located.path).sha256, fingerprint(images)
    loaded: zoo.LoadedModel | None = None
    for protocol in protocols_of(row):
        name = f"{row.full_name}, {protocol.name}"
        earlier = before.get((row.full_name, protocol.name, weights, data))
        if earlier is not None:
            say(f"{name}: measured before")
            yield earlier, ()
            continue
        loaded = loaded or loading.load(row, located)
        with progress(name, len(images)) as done:
            measurement, bad = measure(row, protocol, loaded, images, computing, weights, progress=done, warn=warn)
        say(f"{name}: top-1 {measurement.top1:.3f}, {measurement.verdict}")
        yield measurement, bad
