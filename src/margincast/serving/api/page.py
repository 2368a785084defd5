"""The page: what a person sees of the service in a browser.

Static files of the package; the page itself holds no margin. It asks for a key like any caller,
and keeps it in the tab.
"""

from importlib.resources import files

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from margincast.serving.api.asking import strict_query
from margincast.serving.api.problem import Refusal

router = APIRouter(include_in_schema=False, dependencies=[Depends(strict_query)])
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILES = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "service.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The files there are: a name that is not here is not looked for on any disk."""
_CONTENT = {name: files(__package__).joinpath("static", name).read_bytes() for name in _FILES}


def _file(name: str) -> Response:
    headers = {
        "content-type": _FILES[name],
        "content-security-policy": PAGE_POLICY,
        "cache-control": "no-cache",
    }
    return Response(_CONTENT[name], headers=headers)


@router.get("/")
async def page() -> Response:
    """The page."""
    return _file("page.html")


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """A file of the page."""
    if name not in _CONTENT or name == "page.html":
        raise Refusal(404, "there is no such file")
    return _file(name)
