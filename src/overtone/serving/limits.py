"""The bounds of a server: every one of them has a default under which a small machine stays up."""

from dataclasses import dataclass

from overtone.ranges import Checked, Count, NonNegative, PositiveInt, Seconds


@dataclass(frozen=True)
class Limits(Checked):
    """What a server accepts.

    Attributes:
        max_batch: images that pass through a network together.
        max_wait_ms: milliseconds that an image waits for others that are on their way.
        max_queue: images of one model that are accepted and not answered yet; more are refused with 503.
        max_bytes: of the body of one request; larger ones are refused with 413 before they are read.
        max_memory: bytes of all bodies that are held at a time; beyond it requests are refused with 503.
        max_files: in one request.
        max_pixels: of one image; larger ones are refused from their header.
        upload_s: seconds in which a body must have come, and a client must read on.
        deadline_s: seconds from the whole body to the answer, else 504.
        drain_s: seconds for what was accepted after SIGTERM.
        decoders: threads that decode; 0: one for each core.
    """

    max_batch: PositiveInt = 16
    max_wait_ms: NonNegative = 3.0
    max_queue: PositiveInt = 128
    max_bytes: PositiveInt = 32 << 20
    max_memory: PositiveInt = 512 << 20
    max_files: PositiveInt = 64
    max_pixels: PositiveInt = 50_000_000
    upload_s: Seconds = 30.0
    deadline_s: Seconds = 60.0
    drain_s: Seconds = 25.0
    decoders: Count = 0
