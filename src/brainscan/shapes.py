"""Shape annotations for tensors, read by people always and checked in tests only.

A signature says ``Float[Tensor, "batch position d"]``; the test suite loads the package
through jaxtyping's import hook, which checks dtype and axes at each call.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Tensor"]
