"""gazetell: looks at a picture, tells what it sees, and shows where it looked.

import gazetell
model = gazetell.load()  # the model that comes with it; load("runs/demo") is one of your own
caption = model.caption("photo.jpg")
caption.save_gaze("gaze.png")
model.ask("photo.jpg", "Which animal is this?").text
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .inference.load import Pair, load
    from .inference.predict import Answer, Answerer, Caption, Captioner

__all__ = ["Answer", "Answerer", "Caption", "Captioner", "Pair", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: importing gazetell stays quick."""
    if name in __all__:
        from .inference import load, predict

        return getattr(load if name in ("Pair", "load") else predict, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted(__all__)
