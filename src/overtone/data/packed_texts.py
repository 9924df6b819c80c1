"""Texts as one run of bytes: a million Python strings would be copied into every process that reads."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Self

import numpy as np


class PackedTexts:
    """A sequence of texts.

    Attributes:
        content: uint8, all texts one after the other in UTF-8 (bytes of file names that are none are kept).
        ends: int64 `(n,)`, where each text ends.
    """

    def __init__(self, content: np.ndarray, ends: np.ndarray) -> None:
        self.content, self.ends = content, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Pack texts."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), ends)

    @classmethod
    def joined(cls, parts: Sequence["PackedTexts"]) -> Self:
        """All texts of several sequences."""
        starts = np.cumsum([0, *(len(part.content) for part in parts)])
        ends = [part.ends + start for part, start in zip(parts, starts[:-1], strict=True)]
        contents = [part.content for part in parts]
        return cls(np.concatenate(contents or [np.empty(0, np.uint8)]), np.concatenate(ends or [np.empty(0, np.int64)]))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]
        start = self.ends[index - 1] if index else 0
        return self.content[start : self.ends[index]].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        content = self.content.tobytes()
        for start, end in pairwise([0, *self.ends.tolist()]):
            yield content[start:end].decode("utf-8", "surrogateescape")

    @property
    def is_sound(self) -> bool:
        """Whether the ends lie within the content, in order."""
        ends = np.concatenate([[0], self.ends])
        return bool((np.diff(ends) >= 0).all()) and int(ends[-1]) == len(self.content)
