from __future__ import annotations

import pytest

pytest.importorskip("inspect_ai")


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    """Inspect's state and logs go into the test's own folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.chdir(tmp_path)
