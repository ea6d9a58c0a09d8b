"""Adapters that come with the package: `models/shipped/MODEL/NAME`."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parent / "shipped"


def shipped_adapters(base: str | None = None) -> list[Path]:
    """The folders of the adapters that come with the package.

    Args:
        base: only those of this model.
    """
    models = sorted(SHIPPED.iterdir()) if SHIPPED.is_dir() else []
    found = (model.glob("*/adapter_config.json") for model in models if base in (None, model.name))
    return sorted(path.parent for paths in found for path in paths)
