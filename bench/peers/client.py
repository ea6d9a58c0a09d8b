"""Talks to a peer that runs in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from bench.measure import ROOT
from bench.setting import BATCH, LATENTS, LAYER, PASS, WIDTH, K, model_folder

INSTALL = "SAELens is not installed here; bench/peers/install.sh makes its environment"


def saelens_python() -> Path | None:
    """The interpreter of SAELens' environment, if that was made."""
    folder = Path(os.environ.get("BRAINSCAN_SAELENS", ROOT / ".venv" / "peers" / "saelens"))
    python = folder.absolute() / "bin" / "python"
    return python if python.exists() else None


class SAELens:
    """SAELens with one configuration, in a process that waits between commands."""

    def __init__(
        self,
        kind: str,
        tokens: Path,
        context: int,
        segments: tuple[int, ...] = (1,),
        settings: Mapping[str, Any] = MappingProxyType({}),
        sae: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Starts the process and loads the model.

        Args:
            kind: "fp32"; "bf16", the model in bfloat16; or "bf16 autocast", the training as well.
            tokens: a file of contexts.
            context: their length.
            segments: steps of each segment of a training run.
            settings: SAELens' own settings of a run, where they are not as shipped.
            sae: those of its autoencoder.
        """
        python = saelens_python()
        if python is None:
            raise SystemExit(INSTALL)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        self.process = subprocess.Popen(
            [str(python), "-W", "ignore", str(Path(__file__).with_name("saelens.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BRAINSCAN_BENCH_VERBOSE") else subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.versions = self._answer()
        self.ask(
            "open",
            dtype="float32" if kind == "fp32" else "bfloat16",
            autocast="autocast" in kind,
            model=str(model_folder()),
            tokens=str(tokens),
            context=context,
            layer=LAYER,
            d=WIDTH,
            latents=LATENTS,
            k=K,
            batch=BATCH,
            segments=segments,
            settings=dict(settings),
            sae=dict(sae),
            **{"pass": PASS},
        )

    def ask(self, what: str, **options: Any) -> dict[str, Any]:
        """Has a command carried out; its answer."""
        if self.process.stdin is None:
            raise SystemExit("the peer has no input")
        self.process.stdin.write(json.dumps({"do": what, **options}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def rate(self, what: str, **options: Any) -> float:
        """Tokens per processor second of a command."""
        done = self.ask(what, **options)
        return float(done["tokens"] / done["seconds"])

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            code = self.process.wait()
            raise SystemExit(
                f"expected an answer from SAELens; it ended with exit code {code}; "
                "BRAINSCAN_BENCH_VERBOSE=1 shows what it said"
            )
        return dict(json.loads(line))

    def __enter__(self) -> SAELens:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()
