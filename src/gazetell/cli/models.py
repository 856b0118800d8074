"""``gazetell models``."""

from ..files import read_text
from .terminal import print_json


def models(run: str | None = None, *, json: bool = False) -> None:
    """List architectures, encoders and recipes, or describe a trained model.

    Args:
        run: A model folder, or hf://owner/name.
        json: Print one JSON object instead of lines.
    """
    if run is not None:
        from ..models.folder import fetch, load_model, read_config

        folder = fetch(run)
        model = load_model(folder)
        if json:
            print_json(read_config(folder) | {"metrics": model.metrics})
        else:
            card = read_text(folder / "README.md")
            print(card.split("---\n", 2)[-1].strip())
        return
    from ..models.answerers import ANSWERERS
    from ..models.captioners import CAPTIONERS
    from ..models.encoders import SMALL_CNN, encoder_names
    from ..training.options import recipe_names

    lists = {
        "captioners": list(CAPTIONERS),
        "answerers": list(ANSWERERS),
        "encoders": [SMALL_CNN, *encoder_names()],
        "recipes": recipe_names(),
    }
    if json:
        print_json(lists)
        return
    for title, names in lists.items():
        print(f"{title}: {' '.join(names)}")
