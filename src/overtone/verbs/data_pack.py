"""`overtone data pack`: tar shards from any images."""

from overtone import options
from overtone.config import Data
from overtone.data.natural_parts import natural_parts
from overtone.data.packing import Packing, pack
from overtone.errors import OvertoneError
from overtone.tasks import task_named
from overtone.verbs.console import note, print_json, print_line, progress, warn


def data_pack(chosen: options.DataPack) -> int:
    """Write shards and report; 1 if images could not be read, which are in no shard.

    Raises:
        OvertoneError: no images are given, or the folder holds something else.
    """
    target = task_named(chosen.task).target
    if chosen.max_side is not None and target in ("mask", "boxes"):
        raise OvertoneError("--max-side resizes images and leaves masks and boxes as they are; leave it out")
    parts = natural_parts(data_of(chosen.data), target)
    total = sum(map(len, parts.values()))
    packing = Packing(chosen.size_mb, chosen.max_side, chosen.quality, not chosen.listed, chosen.workers)
    if chosen.max_side is not None:
        note(
            f"images with a shorter side above {chosen.max_side} pixels are resized and written as JPEG of quality "
            f"{chosen.quality}: their pixels change"
        )
    with progress("packing", total) as done:
        packed = pack(parts, chosen.out, packing, done)
    result = {
        "folder": str(packed.folder),
        "counts": dict(packed.counts),
        "shards": packed.shards,
        "kept": packed.kept,
        "bytes": packed.size,
        "bad": [{"image": name, "reason": reason} for name, reason in packed.bad],
    }
    if chosen.json:
        print_json(result)
    else:
        counts = ", ".join(f"{count:,} {part}" for part, count in packed.counts.items())
        kept = f" ({packed.kept} of them from an earlier call)" if packed.kept else ""
        print_line(f"{packed.folder}: {counts} images in {packed.shards} shards{kept}, {packed.size / 1e6:,.1f} MB")
    for name, reason in packed.bad:
        warn(f"{name} could not be read: {reason}; it is in no shard")
    return 1 if packed.bad else 0


def data_of(chosen: options.PackedData) -> Data:
    """The images that a verb was given.

    Raises:
        OvertoneError: none.
    """
    if chosen.root is None and chosen.table is None:
        raise OvertoneError("no images are given; add a folder of class folders: DIR, or --data.root DIR")
    return Data(root=chosen.root, table=chosen.table)
