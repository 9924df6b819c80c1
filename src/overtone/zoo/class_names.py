"""Names of a network's outputs."""

from overtone.data.imagenet import NUM_CLASSES, readable, synsets
from overtone.errors import OvertoneError
from overtone.models._families import head_rows_of
from overtone.published import Published, rows_of
from overtone.zoo.filling import LoadedModel
from overtone.zoo.reading import HUB_LAYOUT, OWN_LAYOUT


def names_of(loaded: LoadedModel) -> tuple[str, ...]:
    """Readable names of the outputs, in their order: see `classes_of`; WordNet ids in words, else the position.

    Raises:
        OvertoneError: the network has no classifier.
    """
    classes = classes_of(loaded)
    if classes is None:
        return tuple(str(index) for index in range(num_outputs(loaded)))
    return tuple(readable(name) for name in classes)


def classes_of(loaded: LoadedModel) -> tuple[str, ...] | None:
    """Names of the outputs as class folders have them, in their order; None where they are unknown.

    The weights' own class names; WordNet ids of ImageNet-1K for published networks with 1000 outputs and for timm's
    that were trained on it last; for a larger classifier whose family knows which outputs ImageNet-1K shares
    (`head_rows`) the ids of those, and `class N` for the others. For a bare file that is of a published network by its
    shapes, that network's classes are assumed: see `supposed_classes`.

    Raises:
        OvertoneError: the network has no classifier.
    """
    count = num_outputs(loaded)
    if loaded.labels is not None:
        return loaded.labels
    row = loaded.published or _row_by_shape(loaded)
    if isinstance(row, Published):
        return published_classes(row, count)
    if count == NUM_CLASSES and loaded.trained and loaded.layout is None and "in1k" in (loaded.tag or ""):
        return synsets()  # timm's tags name the data that the weights were trained on last
    return None


def supposed_classes(loaded: LoadedModel) -> str | None:
    """What `classes_of` assumes about a bare file, as a sentence for a log; None where it knows."""
    row = None if loaded.labels is not None or loaded.published is not None else _row_by_shape(loaded)
    if row is None:
        return None
    return f"its {num_outputs(loaded)} classes are assumed to be those of the published {row.full_name}"


def _row_by_shape(loaded: LoadedModel) -> Published | None:
    """The published row whose network and number of classes a file of bare tensors has."""
    if loaded.layout in (None, OWN_LAYOUT, HUB_LAYOUT) or set(loaded.model_args) - {"in_chans"}:
        return None
    count = int(getattr(loaded.model, "num_classes", 0))
    rows = (row for row in rows_of(loaded.architecture) if count in (row.num_classes, NUM_CLASSES))
    return next(rows, None)


def published_classes(row: Published, num_outputs: int) -> tuple[str, ...]:
    """The classes of a published network as names of folders: WordNet ids, and `class N` where none is published."""
    if num_outputs == NUM_CLASSES:
        return synsets()
    names = [f"class {index}" for index in range(num_outputs)]
    shared = head_rows_of(num_outputs, NUM_CLASSES)
    if shared is not None and num_outputs == row.num_classes:
        for synset, index in zip(synsets(), shared, strict=True):
            names[index] = synset
    return tuple(names)


def num_outputs(loaded: LoadedModel) -> int:
    """Number of labels the network distinguishes.

    Raises:
        OvertoneError: it has no classifier.
    """
    count = len(loaded.labels) if loaded.labels is not None else int(getattr(loaded.model, "num_classes", 0))
    if count < 1:
        raise OvertoneError(f"{loaded.source} has no classifier; give a network with one")
    return count
