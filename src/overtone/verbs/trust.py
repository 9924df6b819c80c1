"""`overtone trust`: vouch for the files of an export whose runtime can run code that they bring."""

from overtone import options
from overtone.deployment.artifact import trust as trust_export
from overtone.deployment.runtimes import runtime_named
from overtone.verbs.console import note, print_line


def trust(chosen: options.Trust) -> int:
    """Record the hashes of an export's files on this machine.

    Raises:
        OvertoneError: no export, a damaged one, or a record that cannot be written.
    """
    about = trust_export(chosen.folder)
    for name, digest in about.files.items():
        print_line(f"{digest}  {chosen.folder / name}")
    runtime = runtime_named(about.runtime)
    if runtime.carries_code:
        note(f"trusted on this machine: opening them in {runtime.title} can run code that they contain")
    else:
        note(f"files for {runtime.title} are data and are opened without being trusted")
    return 0
