"""`overtone data verify`: whether shards are as they were written."""

from overtone import options
from overtone.data.surveying import survey_shards, verify_shards
from overtone.verbs.console import print_json, print_line, progress, warn


def data_verify(chosen: options.DataVerify) -> int:
    """Check and report; 1 if anything is wrong.

    Raises:
        OvertoneError: the folder has no `index.json`.
    """
    wrong = verify_shards(chosen.folder)
    samples = 0
    if not chosen.no_decode:
        with progress("decoding", 0) as done:
            samples, bad = survey_shards(chosen.folder, done)
        wrong += bad
    if chosen.json:
        listed = [{"name": name, "problem": problem} for name, problem in wrong]
        print_json({"folder": str(chosen.folder), "decoded": samples, "wrong": listed})
    else:
        for name, problem in wrong:
            warn(f"{name}: {problem}")
        decoded = f", {samples:,} images decoded" if samples else ""
        print_line(f"{chosen.folder}: {'whole' if not wrong else f'{len(wrong)} problems'}{decoded}")
    return 1 if wrong else 0
