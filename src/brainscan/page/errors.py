"""What the API answers where it cannot do what was asked, in the form that clients know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.responses import JSONResponse

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_CODES = {401: "invalid_api_key", 413: "request_too_large"}
_SERVER = 500


class ApiError(Exception):
    """A request that cannot be answered as it is."""

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        """One line for whoever asked.

        Args:
            message: what was expected, what came, and the remedy.
            status: the status of the answer.
            param: the field of the request that it is about.
            code: a word for programs.
        """
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The body of an answer that tells of an error.

    Args:
        status: the answer's status.
        message: one line.
        param: the field of the request that it is about.
        code: a word for programs.
    """
    usual = "server_error" if status >= _SERVER else "invalid_request_error"
    kind = _TYPES.get(status, usual)
    told = {"message": message, "type": kind, "param": param, "code": code or _CODES.get(status)}
    return {"error": told}


def error_response(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> JSONResponse:
    """An answer that tells of an error.

    Args:
        status: its status.
        message: one line.
        param: the field of the request that it is about.
        code: a word for programs.
    """
    from starlette.responses import JSONResponse

    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(error_body(status, message, param, code), status, headers)
