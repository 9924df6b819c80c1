"""`overtone data info`: what a source of images holds."""

from typing import Any

from overtone import options
from overtone.checkpoint import write_text
from overtone.data.natural_parts import natural_parts
from overtone.data.surveying import Survey, survey
from overtone.reports.plots import Artist
from overtone.tasks import task_named
from overtone.tasks.task import Plot
from overtone.verbs.console import as_json, note, print_json, print_line, print_table, progress, warn
from overtone.verbs.data_pack import data_of

_MOST_CLASSES = 20


def data_info(chosen: options.DataInfo) -> int:
    """Read every image and report; 1 if some cannot be read.

    Raises:
        OvertoneError: no images are given, or no source reads them.
    """
    parts = natural_parts(data_of(chosen.data), task_named(chosen.task).target)
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
    rows = sorted(one.labels.items(), key=lambda item: (item[1], item[0]))
    if len(rows) > _MOST_CLASSES:
        print_line(f"  the {_MOST_CLASSES} labels with the fewest images:")
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
    return [counts, Plot(f"{part}-sides", "bars", f"{part}: shorter side, pixels", names, (values,))]
