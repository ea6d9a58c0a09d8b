"""Downloads from a hub, by a hub of our own on the loopback: what the command sees and leaves."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from brainscan.models.tiny import tiny

COMMIT = "c" * 40
NAME = "someone/tiny"


class Hub(ThreadingHTTPServer):
    """Serves the files of one model as the hub does."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.asked: list[str] = []
        self.cut = ""
        """A file that breaks off in the middle."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0]
        if re.fullmatch(rf"/api/models/{NAME}(/revision/\w+)?", path):
            names = sorted(one.name for one in self.server.folder.iterdir())
            found = {"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
            return self._send(json.dumps(found).encode(), {}, body)
        if re.fullmatch(rf"/api/models/{NAME}/tree/\w+", path):
            return self._send(json.dumps(self._tree()).encode(), {}, body)
        match = re.fullmatch(rf"/{NAME}/resolve/\w+/([\w.-]+)", path)
        file = self.server.folder / match[1] if match else None
        if file is None or not file.is_file():
            wrong = "EntryNotFound" if match else "RepoNotFound"
            return self._send(b"", {"X-Error-Code": wrong}, body, status=404)
        data = file.read_bytes()
        tag = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return self._send(data, tag, body, cut=file.name == self.server.cut)

    def _tree(self) -> list[dict[str, object]]:
        files = sorted(self.server.folder.iterdir())
        return [
            {"type": "file", "path": one.name, "size": one.stat().st_size, "oid": "0" * 40}
            for one in files
        ]

    def _send(
        self,
        data: bytes,
        headers: dict[str, str],
        body: bool,
        status: int = 200,
        cut: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = cut


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    lm, folder = tiny("llama"), tmp_path / "served"
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not wanted")
    served = Hub(folder)
    Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


def loaded(hub: Hub, home: Path, name: str = NAME) -> subprocess.CompletedProcess[str]:
    """Loads the model in a process of its own, since the hub's address is read at import."""
    code = f"import brainscan as bs; lm = bs.load({name!r}, dtype='float32'); print(lm.ref.weights)"
    env = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
        "BRAINSCAN_CACHE": str(home / "ours"),
    }
    env.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=240
    )


def test_a_model_is_downloaded_once_and_then_read_from_the_cache(hub, tmp_path):
    found = loaded(hub, tmp_path / "home")
    assert found.returncode == 0, found.stderr
    weights = hashlib.sha256((hub.folder / "model.safetensors").read_bytes()).hexdigest()
    assert found.stdout.strip() == weights
    assert not [path for path in hub.asked if "pytorch_model.bin" in path]  # of no use to us
    hub.asked.clear()
    again = loaded(hub, tmp_path / "home")
    assert again.stdout == found.stdout and not hub.asked


def test_a_download_that_breaks_off_is_one_line_and_goes_on(hub, tmp_path):
    hub.cut = "model.safetensors"
    found = loaded(hub, tmp_path / "home")
    assert found.returncode and "expected" in found.stderr.splitlines()[-1]
    hub.cut = ""
    again = loaded(hub, tmp_path / "home")
    assert again.returncode == 0, again.stderr


def test_a_model_that_the_hub_does_not_have_is_one_line(hub, tmp_path):
    found = loaded(hub, tmp_path / "home", "someone/else")
    assert found.returncode and "someone/else" in found.stderr.splitlines()[-1]
