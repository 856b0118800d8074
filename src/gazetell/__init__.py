"""gazetell: looks at a picture, tells what it sees, and shows where it looked.

import gazetell
model = gazetell.load("runs/demo")
caption = model.caption("scene.png")
caption.save_gaze("gaze.png")
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .inference.predict import Answer, Answerer, Caption, Captioner, load

__all__ = ["Answer", "Answerer", "Caption", "Captioner", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: importing gazetell stays quick."""
    if name in __all__:
        from .inference import predict

        return getattr(predict, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted(__all__)
