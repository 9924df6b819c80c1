"""What the outputs of a network are called."""

from overtone import zoo
from overtone.data.imagenet import NUM_CLASSES, class_names, readable, synsets
from overtone.models import families
from overtone.published import Published
from overtone.verbs.inference import num_outputs


def names_of(loaded: zoo.LoadedModel) -> tuple[str, ...]:
    """The outputs' names for people, in their order.

    The weights' own class names, WordNet ids of ImageNet in words; those of ImageNet-1K for published networks with
    1000 outputs; for HorNet's 10,459 classes of ImageNet-22K the words of the thousand that ImageNet-1K shares, and
    `class N` for the others; otherwise the position.

    Raises:
        OvertoneError: the network has no classifier.
    """
    if loaded.classes is not None:
        return tuple(readable(name) for name in loaded.classes)
    count = num_outputs(loaded)
    if loaded.published is not None:
        return tuple(readable(name) for name in published_classes(loaded.published, count))
    if count == NUM_CLASSES and loaded.trained and loaded.layout is None and "in1k" in loaded.source:
        return class_names()  # by name from timm, whose tags name the data that the weights were trained on last
    return tuple(str(index) for index in range(count))


def published_classes(row: Published, num_outputs: int) -> tuple[str, ...]:
    """The classes of a published network as names of folders: WordNet ids, and `class N` where none is published."""
    if num_outputs == NUM_CLASSES:
        return synsets()
    names = [f"class {index}" for index in range(num_outputs)]
    told = (getattr(family, "head_rows", lambda *_: None)(num_outputs, NUM_CLASSES) for family in families())
    shared = next((rows for rows in told if rows is not None), None)
    if shared is not None and num_outputs == row.num_classes:
        for synset, index in zip(synsets(), shared, strict=True):
            names[index] = synset
    return tuple(names)
