"""brainscan: see, test and change what a language model represents.

Everything public is listed in ``__all__`` and loaded when first used, so that importing the
package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from brainscan.dictionaries.base import Address
    from brainscan.errors import BrainscanError

_HOME = {
    "Address": "brainscan.dictionaries.base",
    "BrainscanError": "brainscan.errors",
}

__all__ = ["Address", "BrainscanError", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'brainscan' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
