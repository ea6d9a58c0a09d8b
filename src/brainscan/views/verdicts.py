"""The verdicts on the claims of an audit: the first thing on its page, to be read by anybody."""

from __future__ import annotations

from collections.abc import Sequence

from brainscan.errors import UsageError
from brainscan.views.data import VerdictView
from brainscan.views.html import Html, escape, join

STATUSES = {"supported": "✓", "not supported": "✕", "inconclusive": "?"}
"""Each status with its sign, so that it is not told by colour alone."""


def verdicts(views: Sequence[VerdictView]) -> Html:
    """Shows claims in large words, each with its status and the reason.

    Args:
        views: the verdicts, in the order in which they are to be read.

    Raises:
        UsageError: a status that is none of the three.
    """
    if not views:
        return Html('<p class="bs-none">No claim was tested.</p>')
    return Html(f'<ol class="bs-verdicts">{join(_verdict(view) for view in views)}</ol>')


def _verdict(view: VerdictView) -> str:
    status = escape(view.status)
    reason = f'<p class="bs-reason">{escape(view.reason)}</p>' if view.reason else ""
    return (
        f'<li class="bs-verdict" data-status="{status}"><span class="bs-status">'
        f'<span aria-hidden="true">{_sign(view.status)}</span> {status}</span>'
        f'<div><h3 class="bs-claim">{escape(view.claim)}</h3>{reason}{_details(view)}</div></li>'
    )


def _sign(status: str) -> str:
    if status not in STATUSES:
        raise UsageError(
            f"a status of a verdict ({', '.join(STATUSES)})", repr(status), "use one of them"
        )
    return STATUSES[status]


def _details(view: VerdictView) -> str:
    if not view.details:
        return ""
    lines = join(f"<li>{escape(line)}</li>" for line in view.details)
    return f'<details class="bs-fold"><summary>Details</summary><ul>{lines}</ul></details>'
