"""The limits of the service."""

import math
from dataclasses import dataclass, fields

from ..errors import UsageError

__all__ = ["ServeOptions"]


@dataclass(frozen=True)
class ServeOptions:
    """What the service takes, keeps and waits for.

    Attributes:
        body: Largest request in MiB.
        pixels: Largest picture in millions of pixels, checked before it is decoded.
        questions: Most questions in a request.
        question_length: Most characters of a question.
        beam: Widest beam that may be asked for.
        queue: Most requests in the house at once; more are sent away with 429.
        seconds: Longest that an answer may take, from the request's end, before 504.
        receive_seconds: Longest that a request may take to arrive, before 408.
        uploads: Most MiB of requests in memory at once, before 503.
        looks: MiB for pictures that were looked at and are kept for further questions.
        look_seconds: How long such a picture is kept after it was last used.
        batch: Most pictures in a forward pass.
        gather: Milliseconds that the first request of a batch waits for others.
        openers: Threads that open pictures.
    """

    body: float = 10.0
    pixels: float = 40.0
    questions: int = 16
    question_length: int = 500
    beam: int = 10
    queue: int = 256
    seconds: float = 30.0
    receive_seconds: float = 20.0
    uploads: float = 256.0
    looks: float = 256.0
    look_seconds: float = 600.0
    batch: int = 32
    gather: float = 3.0
    openers: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value < 0 or (value == 0 and field.name != "gather"):
                option = field.name.replace("_", "-")
                raise UsageError(f"--{option} {value}: expected a number above 0")

    @property
    def body_bytes(self) -> int:
        """Largest request in bytes."""
        return int(self.body * 2**20)

    @property
    def max_pixels(self) -> int:
        """Largest picture in pixels."""
        return int(self.pixels * 1e6)
