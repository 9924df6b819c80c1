"""`overtone data info`: what a source of images holds."""

from pathlib import Path
from typing import Any

from PIL import Image

from overtone import options
from overtone.checkpoint import write_text, write_with
from overtone.data.decoding import BadImage, decode_image
from overtone.data.natural_parts import natural_parts
from overtone.data.sources import Source
from overtone.data.sources.masks import has_masks
from overtone.data.surveying import WITHOUT, Survey, survey
from overtone.reports.plots import Artist
from overtone.tasks import task_named
from overtone.tasks.segmentation.drawing import explained
from overtone.tasks.task import Plot
from overtone.verbs.console import as_json, note, print_json, print_line, print_table, progress, warn
from overtone.verbs.data_pack import data_of

_MOST_CLASSES, _MOST_OVERLAYS = 20, 8


def data_info(chosen: options.DataInfo) -> int:
    """Read every image and report; 1 if some cannot be read.

    Raises:
        OvertoneError: no images are given, or no source reads them.
    """
    data = data_of(chosen.data)
    task = chosen.task or ("segmentation" if has_masks(data) else "classification")
    parts = natural_parts(data, task_named(task).target)
    found: dict[str, Survey] = {}
    for part, source in parts.items():
        with progress(f"reading {part}", len(source)) as done:
            found[part] = survey(source, decode=not chosen.headers, progress=done)
    result = {part: _values(one) for part, one in found.items()}
    if chosen.json:
        print_json(result)
    else:
        for part, one in found.items():
            _print(part, one)
    if chosen.out is not None:
        write_text(chosen.out / "info.json", as_json(result))
        for part, one in found.items():
            for plot in _plots(part, one):
                Artist().plot(plot, chosen.out / f"{plot.name}.png")
            if one.pixels:
                _write_overlays(parts[part], chosen.out / "examples", part)
        note(f"{chosen.out}: info.json and plots written")
    for one in found.values():
        for name, reason in one.bad:
            warn(f"{name} could not be read: {reason}")
    return 1 if any(one.bad for one in found.values()) else 0


def _values(one: Survey) -> dict[str, Any]:
    return {
        "samples": one.samples,
        "bytes": one.num_bytes,
        "labels": dict(one.labels),
        "sizes": [{"width": width, "height": height, "images": count} for (width, height), count in one.sizes.items()],
        "formats": dict(one.formats),
        **({"pixels": dict(one.pixels)} if one.pixels else {}),
        "bad": [{"image": name, "reason": reason} for name, reason in one.bad],
        "same": [list(names) for names in one.same],
    }


def _print(part: str, one: Survey) -> None:
    formats = ", ".join(f"{count:,} {name}" for name, count in sorted(one.formats.items()))
    print_line(f"{part}: {one.samples:,} images ({formats}), {one.num_bytes / 1e6:,.1f} MB, {len(one.labels)} labels")
    if one.sizes:
        widths, heights = zip(*one.sizes, strict=True)
        print_line(
            f"  width {min(widths)} to {max(widths)}, height {min(heights)} to {max(heights)} pixels; "
            f"{len(one.bad)} unreadable, {len(one.same)} groups of equal files"
        )
    rows = sorted(one.labels.items(), key=lambda item: (item[1], one.pixels.get(item[0], 0), item[0]))
    if len(rows) > _MOST_CLASSES:
        print_line(f"  the {_MOST_CLASSES} labels with the fewest images:")
    if one.pixels:
        every = sum(one.pixels.values())
        shares = {name: f"{100 * count / every:.3f} %" for name, count in one.pixels.items()}
        cells = [(name, f"{count:,}", shares[name]) for name, count in rows[:_MOST_CLASSES]]
        print_table(("class", "images", "share of pixels"), [*cells, (WITHOUT, None, shares[WITHOUT])])
    else:
        print_table(("label", "images"), [(name, f"{count:,}") for name, count in rows[:_MOST_CLASSES]])
    for names in one.same[:_MOST_CLASSES]:
        print_line(f"  equal: {', '.join(names)}")


def _plots(part: str, one: Survey) -> list[Plot]:
    """Images of each label, and of each shorter side."""
    labels = tuple(one.labels)
    counts = Plot(f"{part}-labels", "bars", f"{part}: images of each label", labels, (tuple(one.labels.values()),))
    sides: dict[int, int] = {}
    for (width, height), count in one.sizes.items():
        side = 32 * (min(width, height) // 32)
        sides[side] = sides.get(side, 0) + count
    names = tuple(f"{side}-{side + 31}" for side in sorted(sides))
    values = tuple(float(sides[side]) for side in sorted(sides))
    plots = [counts, Plot(f"{part}-sides", "bars", f"{part}: shorter side, pixels", names, (values,))]
    if one.pixels:
        shares = tuple(100 * count / sum(one.pixels.values()) for count in one.pixels.values())
        title = f"{part}: share of each class"
        plots.append(Plot(f"{part}-shares", "bars", title, tuple(one.pixels), (shares,), axes=("pixels (%)", "")))
    return plots


def _write_overlays(source: Source, folder: Path, part: str) -> None:
    """Draw the masks of some samples at even distances on their images."""
    folder.mkdir(parents=True, exist_ok=True)
    for position in range(0, len(source), -(-len(source) // _MOST_OVERLAYS)):
        try:
            record = source.read(position)
            image = record.get("image", b"")
            image = image.convert("RGB") if isinstance(image, Image.Image) else decode_image(image)
            if (mask := record.get("mask")) is None:
                continue
            drawn = explained(image, mask.pixels(), source.labels)
        except BadImage:  # it is named with its reason
            continue
        path = folder / f"{part}-{Path(source.name(position)).stem}.png"
        write_with(path, lambda to, drawn=drawn: drawn.save(to, format="PNG"))
