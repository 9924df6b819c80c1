"""`overtone explain`: where a network looks."""

import json
from pathlib import Path

from overtone import options
from overtone.checkpoint import write_text, write_with
from overtone.data.decoding import BadImage, decode_image
from overtone.data.sources import find_images
from overtone.engine.inference import ready
from overtone.errors import OvertoneError
from overtone.reports.heat_maps import heat_maps, panels
from overtone.verbs.console import note, progress, warn
from overtone.verbs.loading import computing, introduce, loaded_for
from overtone.verbs.predict import stems_of
from overtone.zoo import names_of


def explain(chosen: options.Explain) -> int:
    """Write a PNG and a JSON file for each image; 1 if images could not be read, which does not stop the others.

    Raises:
        OvertoneError: no images, a folder with files in it, or as `heat_maps`.
    """
    if not chosen.images:
        raise OvertoneError("no images are given; add image files or a folder after the model")
    if chosen.out.exists() and any(chosen.out.iterdir()):
        raise OvertoneError(f"{chosen.out} is not empty; give a new folder as --out")
    paths = find_images(chosen.images)
    loaded = loaded_for(chosen)
    introduce(loaded)
    inference = ready(loaded, names_of(loaded), computing(chosen.run))
    bad: list[tuple[Path, str]] = []
    with progress("explaining", len(paths)) as done:
        for number, (path, stem) in enumerate(zip(paths, stems_of(paths), strict=True), start=1):
            try:
                image = decode_image(path, inference.preprocess.exif)
            except BadImage as error:
                bad.append((path, error.reason))
                continue
            maps = heat_maps(inference, image, chosen.label, top_k=chosen.top_k, layer=chosen.layer)
            chosen.out.mkdir(parents=True, exist_ok=True)
            drawn = panels(image, maps, chosen.opacity)
            write_with(chosen.out / f"{stem}.png", lambda file, drawn=drawn: drawn.save(file, format="PNG"))
            record = {"image": str(path), "model": loaded.source, "maps": [found.to_dict() for found in maps]}
            write_text(chosen.out / f"{stem}.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
            done(number)
    for path, reason in bad:
        warn(f"{path} could not be read: {reason}")
    note(f"{chosen.out}: heat maps of {len(paths) - len(bad)} of {len(paths)} images")
    return 1 if bad else 0
