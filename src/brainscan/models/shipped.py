"""Adapters that come with the package: `models/shipped/MODEL/NAME`."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parent / "shipped"


def shipped_adapters(base: str | None = None) -> list[Path]:
    """The folders of the adapters that come with the package.

    Args:
        base: only those of this model.
    """
    return sorted(path.parent for path in SHIPPED.glob(f"{base or '*'}/*/adapter_config.json"))
