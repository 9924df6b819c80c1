"""Objects in Pascal VOC's XML: one file for each image, boxes as xmin, ymin, xmax, ymax.

The four numbers are taken as the borders of the box in pixels from the corner of the image, as today's tools write
them. (VOC itself counts pixels from 1 and includes the last one: its boxes come out one pixel smaller on two sides.)

The files are somebody else's. A document type, and with it every entity, is refused before anything is expanded.
"""

import xml.parsers.expat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from overtone.data.opening import read_file
from overtone.data.sources.boxed import Faults, Marked, Noted
from overtone.errors import OvertoneError, some

_MOST_BYTES = 20_000_000
_MOST_DEPTH = 32
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class BadAnnotation(Exception):
    """An annotation file that cannot be read; as text, why."""


def read_voc(
    images: Mapping[str, Path], annotations: Mapping[str, Path], stems: Iterable[str] | None, faults: Faults
) -> list[Marked]:
    """Images with their objects.

    Args:
        images: files by their names below their folder, without suffix.
        annotations: XML files in the same way.
        stems: the images that are asked for; None: all of which one or the other is there.
        faults: gets what is left out: an image without annotation, an annotation without image.

    Raises:
        OvertoneError: files that cannot be read.
    """
    found, broken = [], []
    for stem in sorted({*images, *annotations} if stems is None else set(stems)):
        if stem not in images:
            faults.add("annotations without image", f"{stem}.xml" if stem in annotations else stem)
        elif stem not in annotations:
            faults.add("images without annotation", images[stem].name)
        else:
            path = images[stem]
            marked = Marked(stem + path.suffix, path)
            try:
                marked.size, marked.objects = read_xml(annotations[stem])
            except BadAnnotation as error:
                broken.append(f"{annotations[stem].name}: {error}")
            found.append(marked)
    if broken:
        raise OvertoneError(
            f"{len(broken)} annotation files cannot be read ({some(broken, 3)}); mend them, or remove them with their "
            "images"
        )
    return found


def read_xml(path: Path) -> tuple[tuple[int, int], list[Noted]]:
    """Height and width of the image, and its objects.

    Raises:
        BadAnnotation: no XML, one with a document type, or without the numbers that it must have.
    """
    root = _parsed(path)
    size = root.find("size")
    height, width = (_number(size, side, "size") for side in ("height", "width"))
    if not (1 <= height < 1 << 20 and 1 <= width < 1 << 20):
        raise BadAnnotation(f"its size is {width:g} x {height:g} pixels")
    objects = []
    for number, entry in enumerate(root.findall("object"), 1):
        where = f"object {number}"
        name = (entry.findtext("name") or "").strip()
        if not name:
            raise BadAnnotation(f"{where} has no name")
        left, top, right, bottom = (_number(entry.find("bndbox"), side, where) for side in _CORNERS)
        is_difficult = (entry.findtext("difficult") or "0").strip() == "1"
        objects.append(Noted(name, (left, top, right, bottom), difficult=is_difficult))
    return (int(height), int(width)), objects


def _number(parent: ElementTree.Element | None, name: str, where: str) -> float:
    text = None if parent is None else parent.findtext(name)
    try:
        return float(text or "")
    except ValueError:
        raise BadAnnotation(f"{where} has no {name}" if text is None else f"{name} of {where} is {text!r}") from None


def _parsed(path: Path) -> ElementTree.Element:
    """The root of an XML file that has no document type."""
    builder = ElementTree.TreeBuilder()
    parser = xml.parsers.expat.ParserCreate()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MOST_DEPTH:
            raise BadAnnotation(f"its elements are nested deeper than {_MOST_DEPTH}")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    parser.StartDoctypeDeclHandler = _refused
    parser.EntityDeclHandler = _refused
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(read_file(path, _MOST_BYTES), True)
        return builder.close()
    except xml.parsers.expat.ExpatError as error:
        raise BadAnnotation(f"no XML ({error})") from None
    except (OSError, ValueError, LookupError, AssertionError) as error:
        raise BadAnnotation(str(getattr(error, "strerror", None) or error)) from None


def _refused(*_: object) -> None:
    raise BadAnnotation("it has a document type, which could hold entities; remove the line <!DOCTYPE …>")


def listed(path: Path) -> Sequence[str]:
    """The images that a file of `ImageSets/Main` names, one a line; what follows a name is left out."""
    try:
        lines = read_file(path, _MOST_BYTES).decode().splitlines()
    except (OSError, ValueError) as error:
        raise OvertoneError(f"{path} cannot be read: {error}") from error
    return [line.split()[0] for line in lines if line.strip()]
