"""The sheet on which a person reviews captions: one page, complete in itself.

Pictures are small data URIs in a JSON block that the script draws rows from as they are scrolled
to, so that thousands open at once. Nothing is fetched, which the page's own content policy holds
it to; edits are kept by the browser until they are downloaded as CSV.
"""

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from string import Template
from typing import Any

from PIL import Image

from ..errors import ImageError
from .gaze import template
from .lettering import one_line
from .maps import resized

__all__ = ["review_sheet", "thumbnail"]

SIDE = 320  # longer side of a picture on the sheet, in pixels


def thumbnail(picture: Image.Image) -> dict[str, Any]:
    """A picture as the sheet shows it: ``thumb``, a data URI, ``width`` and ``height``."""
    small = resized(picture, min(SIDE, max(picture.size)))
    buffer = io.BytesIO()
    # About 10 kB a photograph, half of what JPEG needs to look as good.
    small.save(buffer, "WEBP", quality=62, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"thumb": uri, "width": small.width, "height": small.height}


def review_sheet(
    title: str,
    rows: Sequence[dict[str, Any]],
    failed: Sequence[ImageError] = (),
    *,
    base: str = ".",
    key: str = "",
) -> str:
    """The sheet as HTML.

    Args:
        title: of the page, such as the folder's name.
        rows: ``picture``, ``caption``, ``log_prob``, ``ended``, ``stamp`` (of the picture: another
            one takes an approval back) and what ``thumbnail`` gave, in any order.
        failed: why other pictures are not there.
        base: the folder of the pictures as seen from the page, an address to open them from.
        key: tells the reviews of this sheet from those of others in the same browser.
    """
    keys = ("picture", "caption", "log_prob", "ended", "stamp", "thumb", "width", "height")
    order = sorted(rows, key=lambda row: (row["log_prob"], row["picture"]))
    content = {
        "key": key,
        "name": one_line(title),
        "base": base,
        "rows": [{name: row[name] for name in keys} for row in order],
    }
    # A "<" in a caption or a name could end the block that holds it.
    data = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")
    return Template(template("review.html")).substitute(
        title=escape(one_line(title)),
        style=template("review.css"),
        failed=_failed(failed),
        data=data,
        script=template("review.js"),
    )


def _failed(errors: Sequence[ImageError]) -> str:
    if not errors:
        return ""
    items = "\n".join(f"<li>{escape(one_line(str(error)))}</li>" for error in errors)
    what = "1 picture is" if len(errors) == 1 else f"{len(errors)} pictures are"
    return (
        f'<section class="failed"><h2>{what} not on this sheet</h2>\n<ul>\n{items}\n</ul></section>'
    )
