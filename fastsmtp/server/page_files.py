"""The page of the admin process: its files, as responses.

Everything that the page needs comes from here; its policy lets the browser fetch from nowhere else, run no script that
is written into the page, and show the page in no frame.
"""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import Final

from .http import Request, Response

_FOLDER: Final = Path(__file__).with_name("page")
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FIELDS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for each time, sent only if it is another one
}


class PageFile:
    """A file of the page, read once."""

    def __init__(self, path: Path) -> None:
        self._body = path.read_bytes()
        self._type = _TYPES[path.suffix]
        self._fields = {**_FIELDS, "ETag": f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'}

    def show(self, request: Request) -> Response:
        """The file, or 304 for who has it (RFC 9110 13.1.2)."""
        known = [tag.strip().removeprefix("W/") for tag in request.fields.get("if-none-match", "").split(",")]
        if self._fields["ETag"] in known or known == ["*"]:
            return Response(HTTPStatus.NOT_MODIFIED, b"", self._type, self._fields)
        return Response(HTTPStatus.OK, self._body, self._type, self._fields)


def page_files() -> dict[str, PageFile]:
    """The files by the path of their request; that of the page itself is ``/``."""
    files = {f"/{path.name}": PageFile(path) for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}
    return {"/": files.pop("/index.html"), **files}
