"""libjpeg and libtiff write about damaged files into the process's standard error; the reason of a bad image says it.

They cannot be asked not to: torchvision and Pillow keep their handlers to themselves. So while an image is decoded,
the descriptor of standard error leads into memory, and afterwards everything that is not a line of theirs is written
where it should have gone. Other threads lose nothing, their lines come a few milliseconds later.
"""

import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_STDERR = 2
# jerror.h of libjpeg: the warnings that its decoder can give
_LIBJPEG = (
    rb"Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Unknown Adobe color|Invalid SOS parameters"
    rb"|Warning: unknown JFIF|Unsupported marker type|Bogus |Quantization table|Huffman table|Not a JPEG"
)
# libtiff begins a line with the function, the codec or the file name that Pillow gives it
_LIBTIFF = (
    rb"(_?TIFF|JPEG|OJPEG|Fax|CCITT|ZIP|LZW|ZSTD|LZMA|LERC|WEBP|PackBits|Pixar|SGILog|Log(L16|Luv)|Thunder|NeXT|Dump"
    rb"|Predictor|horizontal|fp|swab|tempfile\.tif|filename|Estimate|ChopUp|setExtraSamples|checkInk|CheckDir|Missing"
    rb"|ByteCount|allocChopped|InitCCITT|EvaluateIFD|BuildMap)[\w. ]*: "
)
_THEIRS = re.compile(rb"(%s|%s)" % (_LIBJPEG, _LIBTIFF))


class _Diversion:
    """Standard error led into memory while at least one thread decodes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth, self.memory, self.kept = 0, -1, -1

    def begin(self) -> None:
        with self.lock:
            self.depth += 1
            if self.depth > 1 or not hasattr(os, "memfd_create"):
                return
            try:
                if self.memory < 0:
                    self.memory = os.memfd_create("stderr")
                self.kept = os.dup(_STDERR)
                os.dup2(self.memory, _STDERR)
            except OSError:  # closed, or no descriptors are left: the lines go where they go
                self.kept = -1

    def end(self) -> None:
        with self.lock:
            self.depth -= 1
            if self.depth == 0 and self.kept >= 0:
                self.restore()
                self.pass_on()

    def restore(self) -> None:
        os.dup2(self.kept, _STDERR)
        os.close(self.kept)
        self.kept = -1

    def pass_on(self) -> None:
        size = os.lseek(self.memory, 0, os.SEEK_CUR)
        if not size:
            return
        lines = os.pread(self.memory, size, 0).splitlines(keepends=True)
        os.ftruncate(self.memory, 0)
        os.lseek(self.memory, 0, os.SEEK_SET)
        others = b"".join(line for line in lines if not _THEIRS.match(line))
        with suppress(OSError):
            while others:
                others = others[os.write(_STDERR, others) :]

    def after_fork(self) -> None:
        """In a new process no other thread runs: end what it had begun, with memory of its own from now on."""
        if self.kept >= 0:
            self.restore()
        if self.memory >= 0:
            os.close(self.memory)
        self.__init__()


_DIVERSION = _Diversion()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_DIVERSION.after_fork)


@contextmanager
def silent_codecs() -> Iterator[None]:
    """A block in which nothing warns, and on Linux the image libraries write nothing to standard error."""
    _DIVERSION.begin()
    try:
        # Pillow warns of large images, odd EXIF blocks and palettes with transparency: `decoding` decides on these.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _DIVERSION.end()
