"""Errors as problem JSON (RFC 9457): a stable code and one sentence, never a traceback."""

import json
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from ..errors import ImageError, PixelLimitError, UsageError

__all__ = ["CODES", "Problem", "answer_to", "problem_of"]

# The code of each problem, and its status.
CODES = {
    "bad_request": 400,
    "unauthorized": 401,
    "not_found": 404,
    "no_such_model": 404,
    "look_expired": 404,
    "method_not_allowed": 405,
    "receive_timeout": 408,
    "body_too_large": 413,
    "picture_too_large": 413,
    "unsupported_media_type": 415,
    "picture_unreadable": 422,
    "invalid": 422,
    "queue_full": 429,
    "internal": 500,
    "not_ready": 503,
    "busy": 503,
    "timeout": 504,
}


class Problem(Exception):
    """What a client is told.

    Args:
        code: a key of ``CODES``.
        detail: one sentence.
        headers: of the response, besides the usual.
    """

    def __init__(self, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code, self.detail, self.headers = code, detail, headers or {}
        self.status = CODES[code]

    def to_dict(self) -> dict[str, Any]:
        """As RFC 9457 has it, with the code as an extension."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }


def answer_to(problem: Problem) -> Response:
    """The response that tells a problem."""
    return Response(
        json.dumps(problem.to_dict()),
        problem.status,
        {"Cache-Control": "no-store", **problem.headers},
        "application/problem+json",
    )


def problem_of(error: Exception) -> Problem:
    """What a client is told of an error; of a defect nothing but that."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ImageError):
        code = "picture_too_large" if isinstance(error, PixelLimitError) else "picture_unreadable"
        # Bytes have no file name: the library calls them "picture".
        return Problem(code, str(error).replace("picture: ", "The picture ", 1) + ".")
    if isinstance(error, UsageError):
        return Problem("invalid", f"{error}.")
    return Problem("internal", "Something went wrong here; it has been logged.")
