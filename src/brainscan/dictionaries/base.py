"""What every dictionary has in common: addresses of latents and sparse codes.

Shapes: ``d`` is the width of the hookpoint, ``latent`` the number of latents, ``k`` the number of
slots for active latents per token.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from brainscan.errors import UsageError
from brainscan.shapes import Float, Int, Tensor

_ADDRESS = re.compile(r"(?P<hookpoint>[a-z_]+\.\d+)/(?P<index>\d+)(?P<sign>[+-]?)")


class Address(NamedTuple):
    """The address of a feature: ``resid_post.15/1234`` or, for a signed neuron, ``neurons.12/345+``."""

    hookpoint: str
    index: int
    sign: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads an address.

        Raises:
            UsageError: the text is no address.
        """
        match = _ADDRESS.fullmatch(text.strip())
        if match is None:
            raise UsageError(
                "a feature's address such as resid_post.15/1234 or neurons.12/345+",
                repr(text),
                "write HOOKPOINT/NUMBER; `brainscan atlas search` prints addresses",
            )
        return cls(match["hookpoint"], int(match["index"]), match["sign"])

    def __str__(self) -> str:
        return f"{self.hookpoint}/{self.index}{self.sign}"


class SparseCode(NamedTuple):
    """The active latents of each token; a slot that is not used has the value 0."""

    indices: Int[Tensor, "*batch k"]
    values: Float[Tensor, "*batch k"]
