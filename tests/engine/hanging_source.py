"""`overtone train` on a folder of class folders of which a file may hang, as on a file server that has gone away.

    python tests/engine/hanging_source.py FIFO train scratch --data.root photos ...

From the moment when the pipe `FIFO` is there, every image is read from it, which waits forever; `FIFO.reached` says
that it does. Taking part as one of several processes is left to the environment.
"""

import sys
from pathlib import Path

from overtone.cli import main
from overtone.config import Data
from overtone.data.sources import ClassFolders, ImageList, Record, Splits, register


class Hanging(ImageList):
    """Images that are read from a pipe, once there is one."""

    fifo = Path()

    def read(self, position: int) -> Record:
        if self.fifo.exists():
            self.fifo.with_suffix(".reached").touch()
            return {"image": self.fifo.read_bytes(), "label": 0}
        return super().read(position)


class HangingFolders(ClassFolders):
    def splits(self, data: Data) -> Splits:
        found = super().splits(data)
        train, val = (
            Hanging(part.labels, part.paths, part.targets, part.origin, part.root)
            for part in (found.train, found.val)
            if isinstance(part, ImageList)
        )
        return Splits(train, val, found.origin, found.seeded)


if __name__ == "__main__":
    Hanging.fifo = Path(sys.argv[1])
    register(HangingFolders())
    sys.exit(main(sys.argv[2:]))
