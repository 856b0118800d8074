"""The command line: thin verbs over the library, each loaded when it is used.

Results go to standard output, everything else to standard error. Exit status: 0 done, 1 a picture
or a typed question failed, 2 an option, 3 data, 4 a picture, 5 a model, 6 writing, 130 interrupted.
"""

import os
import sys
import warnings
from typing import Any

from cyclopts import App, CycloptsError

from .. import __version__
from ..errors import GazetellError
from .terminal import STDIN

__all__ = ["app", "main"]

app = App(
    name="gazetell",
    version=__version__,
    help="Looks at a picture, tells what it sees, answers questions, and shows where it looked.",
)
VERBS = {
    "demo": "Generate scenes, train on them, evaluate, and write a report: minutes, no download.",
    "data": "Prepare a dataset: COCO, Flickr8k, Flickr30k, coco.pt, your own table, or scenes.",
    "features": "Encode the pictures of a dataset once, for training with a frozen encoder.",
    "vectors": "Pretrain word vectors on the training captions and questions of a dataset.",
    "train": "Train a captioner or an answerer, or go on with a run that was stopped.",
    "evaluate": "Measure a trained model on a split of a dataset.",
    "reproduce": "Make a table of results: every model trained, measured and printed.",
    "score": "Score anybody's captions or answers with the official metrics.",
    "caption": "Tell what pictures show, and where the model looked.",
    "ask": "Answer questions about a picture, with a confidence.",
    "serve": "Serve models: a REST API, and a page where people look and ask.",
    "describe": "Alt text for a folder: caption it into a table, or a sheet to review.",
    "models": "List architectures, encoders and recipes, or describe a trained model.",
    "doctor": "Show versions, devices, and what can be used here.",
}
for verb, text in VERBS.items():
    # "data" is a group of verbs of its own; it brings its help along.
    if verb == "data":
        app.command("gazetell.cli.data:app", name=verb)
    else:
        app.command(f"gazetell.cli.{verb}:{verb}", name=verb, help=text)


def _recipe(app: App, commands: tuple[str, ...], arguments: Any) -> None:
    """Presets from ``--recipe``, for the verbs that have it."""
    if any(argument.name == "--recipe" and argument.tokens for argument in arguments):
        from .train import recipe_defaults

        recipe_defaults(app, commands, arguments)


app.config = (_recipe,)


def main() -> None:
    """Run the command line and exit."""
    # Damaged metadata of a picture say nothing about its pixels.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        # The parser takes a lone hyphen for an option without a name.
        tokens = [STDIN if token == "-" else token for token in sys.argv[1:]]
        status = app(tokens, print_error=False, exit_on_error=False)
    except CycloptsError as error:
        # Its own box would be several lines.
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except GazetellError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output (head, less) left; say nothing more, also not on closing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
