"""Reading requests: JSON or a form becomes a request model and the bytes of a picture."""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from .problems import Problem
from .schemas import PictureRequest

__all__ = ["Intake", "read", "request_body"]

Asked = TypeVar("Asked", bound=PictureRequest)
JSON, FORM = "application/json", "multipart/form-data"
FIELDS = 32  # most fields of a request, questions of a form not counted


@dataclass(frozen=True)
class Intake(Generic[Asked]):
    """A request: its fields, and the picture file if one was sent."""

    asked: Asked
    picture: bytes | None


async def read(request: Request, kind: type[Asked], questions: int) -> Intake[Asked]:
    """Read a request.

    Args:
        request: whose body was not read yet.
        kind: what it asks for.
        questions: most of them.

    Raises:
        Problem: neither JSON nor a form, malformed, or fields that do not fit.
    """
    if request.url.query:
        raise Problem("invalid", "Fields in the address are not read; send them in the body.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported_media_type", "Expected a body without Content-Encoding.")
    content = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content == JSON:
        values = await _json(request)
        picture = None
    elif content == FORM:
        values, picture = await _form(request, FIELDS + questions)
    else:
        raise Problem("unsupported_media_type", f"Expected the content type {JSON} or {FORM}.")
    try:
        asked = kind.model_validate(values)
    except ValidationError as error:
        raise Problem("invalid", _first(error)) from None
    if asked.image is not None:
        if picture is not None:
            raise Problem("invalid", "Two pictures were sent; expected one.")
        picture = _decoded(asked.image)
    has_look = getattr(asked, "look", None) is not None
    if (picture is None) != has_look:
        expected = "image or look" if hasattr(asked, "look") else "image"
        found = "both" if has_look else "nothing"
        raise Problem("invalid", f"Expected {expected}, found {found}.")
    # The text is not needed any more and may be large.
    return Intake(asked.model_copy(update={"image": None}), picture)


async def _json(request: Request) -> dict[str, Any]:
    try:
        values = json.loads(await request.body(), object_pairs_hook=_each_once)
    except (ValueError, RecursionError):
        raise Problem("bad_request", "The body is no JSON.") from None
    if not isinstance(values, dict):
        raise Problem("bad_request", "Expected a JSON object.")
    if len(values) > FIELDS:
        raise Problem("invalid", f"{len(values)} fields: expected at most {FIELDS}.")
    return values


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a JSON object; the last of two would win unseen."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise Problem("invalid", "A field was given twice.")
    return values


async def _form(request: Request, fields: int) -> tuple[dict[str, Any], bytes | None]:
    try:
        form = await request.form(max_files=1, max_fields=fields)
    except HTTPException as error:
        raise Problem("bad_request", f"The form cannot be read: {error.detail}") from None
    except UnicodeError:  # from the charset that the client named
        raise Problem("bad_request", "The form is not in the charset that it names.") from None
    try:
        return await _fields(form)
    finally:
        await form.close()


async def _fields(form: FormData) -> tuple[dict[str, Any], bytes | None]:
    values: dict[str, Any] = {}
    picture = None
    for name in form:
        given = form.getlist(name)
        files = [item for item in given if isinstance(item, UploadFile)]
        if files and name != "image":
            raise Problem("invalid", f"{name[:40]!r} is a file; expected the file in 'image'.")
        if files:
            picture = await files[0].read()
            given = [item for item in given if item is not files[0]]
        if name in ("question", "questions"):
            values.setdefault("questions", []).extend(given)
        elif len(given) > 1:
            raise Problem("invalid", f"{name[:40]!r} was given {len(given)} times.")
        elif given:
            values[name] = given[0]
    return values, picture


def _decoded(text: str) -> bytes:
    """The bytes of base64, also of a data URI."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Problem("invalid", "image: expected a picture file in base64.") from None


def _first(error: ValidationError) -> str:
    """The first complaint as a sentence; nothing of what was sent is repeated."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part)[:40] for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    return f"{where}: {what}." if where else f"{what[:1].upper()}{what[1:]}."


def request_body(kind: type[BaseModel]) -> dict[str, Any]:
    """How OpenAPI describes what ``read`` reads."""
    schema = kind.model_json_schema()
    # A form has no null: what is not given is not there.
    form = {**schema, "properties": {k: _given(v) for k, v in schema["properties"].items()}}
    form["properties"]["image"] = {
        "type": "string",
        "format": "binary",
        "description": "A picture file.",
    }
    content = {JSON: {"schema": schema}, FORM: {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field without the choice of null."""
    if "anyOf" not in schema:
        return schema
    (kind,) = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
    return {**{k: v for k, v in schema.items() if k not in ("anyOf", "default")}, **kind}
