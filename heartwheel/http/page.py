"""The status page as it is sent to a browser."""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from starlette.responses import Response


class Page:
    """The status page: one document with its style and script inside, and nothing from outside."""

    def __init__(self) -> None:
        """Put it together; the policy allows this style and script, by their hashes, alone."""
        folder = files("heartwheel.http")
        style = folder.joinpath("page.css").read_text("utf-8")
        script = folder.joinpath("page.js").read_text("utf-8")
        page = folder.joinpath("page.html").read_text("utf-8")
        self._body = page.replace("/*style*/", style).replace("/*script*/", script).encode()
        self.policy = (
            f"default-src 'none'; script-src {_hashed(script)}; style-src {_hashed(style)}; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )

    def response(self, code: int) -> Response:
        """Return the page; it holds no data."""
        return Response(self._body, code, media_type="text/html")


def _hashed(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
