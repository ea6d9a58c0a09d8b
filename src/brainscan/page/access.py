"""Who may reach the page and the API.

1. A request shows the token: in the header ``Authorization: Bearer TOKEN``, in the address as
   ``?token=TOKEN``, or in a cookie. A page that is opened with it in the address gets the cookie,
   and is sent on to the address without it.
2. A request whose header ``Host`` is neither an address nor a name that is known is refused: a name
   of another site's can be made to point here, and its pages would then count as ours.
3. A request with a header ``Origin``, which browsers send along when one site calls another, must
   come from here.

It is a middleware, so that it stands before all that is mounted: pages, sockets and the API.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from brainscan.errors import UsageError
from brainscan.page.errors import error_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_TOKEN = re.compile(r"[A-Za-z0-9._~-]+")
_NAMES = ("localhost",)
_API = "/v1"
_CLOSED = 1008


def new_token() -> str:
    """A token made by chance."""
    return secrets.token_urlsafe(24)


def check_token(token: str | None) -> None:
    """Refuses a token that cannot stand in a header, an address and a cookie.

    Args:
        token: the token; None for none.

    Raises:
        UsageError: it is empty, or has other characters.
    """
    if token is not None and not _TOKEN.fullmatch(token):
        raise UsageError(
            "a token of letters, digits, '-', '_', '.' and '~'",
            "an empty one" if not token else "one with other characters",
            "choose another, or leave it out for one made by chance",
        )


class Access:
    """Lets through who may pass."""

    def __init__(self, app: ASGIApp, token: str | None, hosts: Sequence[str] = ()) -> None:
        """Stands before an application.

        Args:
            app: the application.
            token: what must be shown; None lets everybody in who comes from here.
            hosts: names of this machine that are known beside ``localhost``.
        """
        self.app = app
        self.token = token
        self.hosts = {name.lower() for name in (*_NAMES, *hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = _headers(scope)
        problem = self._elsewhere(headers)
        if problem is not None:
            await _refuse(scope, receive, send, 403, problem)
        elif self.token is None or self._shown(scope, headers):
            await self.app(scope, receive, send)
        elif self._same(dict(parse_qsl(_query(scope))).get("token")):
            await self._welcome(scope, receive, send, headers)
        else:
            told = "expected the token that `brainscan serve` printed, as 'Authorization: Bearer "
            told += "TOKEN' or in the address as ?token=TOKEN; got none or another one"
            await _refuse(scope, receive, send, 401, told)

    def _elsewhere(self, headers: dict[str, str]) -> str | None:
        """What tells that a request is of another site, if anything does."""
        host = headers.get("host", "")
        if not self._is_known(host):
            return f"expected an address, localhost or a known name as the host; got {host!r:.80}"
        origin = headers.get("origin")
        if origin is not None and _host_of(origin) != host.lower():
            return f"expected a request from this page; got one from {origin!r:.80}"
        return None

    def _is_known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            ipaddress.ip_address(name)
        except ValueError:
            return _name(host) in self.hosts
        return True

    def _shown(self, scope: Scope, headers: dict[str, str]) -> bool:
        """Whether the token stands in a header or in the cookie."""
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._same(value.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_cookie(headers))
        except CookieError:
            return False
        return cookie is not None and self._same(cookie.value)

    def _same(self, shown: str | None) -> bool:
        """Whether this is the token, found out in a time that does not depend on what it is."""
        known = (self.token or "").encode()
        return bool(shown) and hmac.compare_digest((shown or "").encode("utf-8", "replace"), known)

    async def _welcome(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[str, str]
    ) -> None:
        """Gives a page the cookie; what is no page goes on as it is."""
        from starlette.responses import RedirectResponse

        wants_page = scope["type"] == "http" and scope["method"] == "GET"
        if not wants_page or scope["path"].startswith(_API):
            await self.app(scope, receive, send)
            return
        rest = urlencode([pair for pair in parse_qsl(_query(scope)) if pair[0] != "token"])
        path = "/" + scope["path"].lstrip("/")  # two slashes would be another site
        response = RedirectResponse(path + (f"?{rest}" if rest else ""), status_code=303)
        response.set_cookie(
            _cookie(headers), self.token or "", httponly=True, samesite="lax", path="/"
        )
        response.headers["cache-control"] = "no-store"
        await response(scope, receive, send)


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): v.decode("latin-1") for name, v in scope["headers"]}


def _query(scope: Scope) -> str:
    return bytes(scope.get("query_string", b"")).decode("latin-1")


def _host_of(origin: str) -> str | None:
    """An origin's host and port; None where it is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _name(host: str) -> str:
    """A host without its port."""
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _cookie(headers: dict[str, str]) -> str:
    """The cookie's name; browsers do not tell a machine's ports apart."""
    return f"brainscan-{headers.get('host', '').rpartition(':')[2].strip(']')}"


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, told: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _CLOSED, "reason": "not let in"})
        return
    await error_response(status, told)(scope, receive, send)
