"""gazetell: looks at a picture, tells what it sees, and shows where it looked.

import gazetell
model = gazetell.load("runs/demo")
caption = model.caption("scene.png")
caption.save_gaze("gaze.png")
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .inference.answering import Answer, Answerer
    from .inference.predictor import Caption, Captioner, load

__all__ = ["Answer", "Answerer", "Caption", "Captioner", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: importing gazetell stays quick."""
    if name in ("Answer", "Answerer"):
        from .inference import answering

        return getattr(answering, name)
    if name in ("Caption", "Captioner", "load"):
        from .inference import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
