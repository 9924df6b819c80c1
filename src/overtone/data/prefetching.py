"""Remote shards, fetched into the cache in the order in which they will be needed, ahead of those that read them."""

import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress

from overtone.data.shard_files import ShardFiles
from overtone.data.storage import Changed
from overtone.errors import OvertoneError


class Prefetcher:
    """A thread that fetches shards, no more than some ahead of what is read.

    What fails is left to the one who reads the shard: it is tried again there, and named.

    Args:
        files: the shards.
        needed: shards in the order in which they are first needed.
        ahead: how many are fetched before they are needed.
    """

    def __init__(self, files: ShardFiles, needed: Sequence[int], ahead: int) -> None:
        self._files, self._ahead = files, ahead
        self._place = {shard: at for at, shard in enumerate(needed)}
        self._reached, self._ended = 0, False
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._fetch, name="overtone-prefetch", daemon=True)
        self._thread.start()

    def advance(self, shards: Iterable[int]) -> None:
        """Say which shards are being read now."""
        with self._moved:
            self._reached = max(self._reached, *(self._place.get(shard, 0) for shard in shards), 0)
            self._moved.notify()

    def close(self) -> None:
        """Fetch no more; a shard that is being fetched is not waited for."""
        with self._moved:
            self._ended = True
            self._moved.notify()

    def _fetch(self) -> None:
        for shard, at in self._place.items():
            with self._moved:
                self._moved.wait_for(lambda at=at: self._ended or at <= self._reached + self._ahead)
                if self._ended:
                    return
            with suppress(OvertoneError, OSError, Changed):
                self._files.path(shard)
