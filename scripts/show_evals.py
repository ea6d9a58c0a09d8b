"""Runs three published evals of inspect_evals on the default model, offline, and opens their logs.

    pip install --no-deps inspect-evals
    python scripts/show_evals.py [FOLDER]

1. `agentic_misalignment` is the long one: an agent with an inbox. Its grader is a stub that always
   says no, so only what the rule finds before it counts.
2. `agent_threat_bench` calls tools in a loop; the activations of every call are kept.
3. `make_me_pay` is a conversation of two models, here both of them the same.
4. For each: how it ended, its calls and tokens, what was recorded. Every recording is read, and
   checked against the hash in the log.
5. `inspect view` is started, asked for the list and for each log, and stopped.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from urllib.request import urlopen

from brainscan.stress.recordings import recording_of

if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.log import EvalLog
    from inspect_ai.model import Model

MODEL = "brainscan/smollm2-135m-instruct"
HOOKPOINT = "resid_post.15"
TOKENS = 48
PATIENCE = 60


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="evals-"))
    logs = [run(name, task, folder, args) for name, task, args in evals()]
    for log in logs:
        print(told(log))
    print(viewed(folder, logs))


def evals() -> list[tuple[str, Task, dict[str, Any]]]:
    """The evals, each with how it is run."""
    from inspect_ai.model import GenerateConfig, get_model
    from inspect_evals.agent_threat_bench import agent_threat_bench_memory_poison
    from inspect_evals.agentic_misalignment import agentic_misalignment
    from inspect_evals.make_me_pay import make_me_pay

    short = {"goal_type": "none", "goal_value": "none", "urgency_type": "replacement"}
    misalignment = agentic_misalignment(**short, prod=True, grader_model=says_no())
    threat = agent_threat_bench_memory_poison(difficulty="easy")
    mark = get_model(MODEL, config=GenerateConfig(max_tokens=TOKENS))
    pay = make_me_pay(num_experiments=2, turn_cap=2)
    return [
        ("agentic_misalignment", misalignment, {"epochs": 2}),
        ("agent_threat_bench", threat, {"limit": 2, "model_args": {"capture": HOOKPOINT}}),
        ("make_me_pay", pay, {"model_roles": {"mark": mark}}),
    ]


def says_no() -> Model:
    """A grader that finds no harm in anything; it gives its tokens, which are else looked up."""
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    def answer(*_: Any) -> ModelOutput:
        made = ModelOutput.from_content("mockllm/model", "<answer>no</answer>")
        made.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return made

    return get_model("mockllm/model", custom_outputs=answer)


def run(name: str, task: Task, folder: Path, args: dict[str, Any]) -> EvalLog:
    """The log of an eval."""
    from inspect_ai import eval as evaluate

    (log,) = evaluate(
        task,
        model=MODEL,
        log_dir=str(folder),
        display="none",
        ctl_server=False,
        max_tokens=TOKENS,
        message_limit=12,
        temperature=1.0,
        seed=0,
        **args,
    )
    if log.status != "success":
        raise SystemExit(f"{name}: {log.status}: {log.error.message if log.error else ''}")
    return log


def told(log: EvalLog) -> str:
    """What came out, in a line."""
    samples = log.samples or []
    events = [event for sample in samples for event in sample.events if event.event == "model"]
    notes = [event.output.metadata["brainscan"] for event in events if event.output.metadata]
    found = [recording_of(note, log.location) for note in notes]
    kept = sum(len(part) for one in found for part in one.activations.values())
    calls = sum(len(event.output.choices[0].message.tool_calls or []) for event in events)
    scores = log.results.scores if log.results else []
    metrics = {
        f"{score.name}.{name}": round(metric.value, 2)
        for score in scores
        for name, metric in score.metrics.items()
        if "stderr" not in name
    }
    usage = log.stats.model_usage[MODEL]
    read = usage.input_tokens_cache_read or 0
    return (
        f"{log.eval.task}: {log.status}, {len(samples)} samples, {len(events)} calls in the log, "
        f"{calls} tool calls, {usage.input_tokens + read} tokens in ({read} held), "
        f"{usage.output_tokens} out, {len(found)} recordings, {kept} positions of activations, "
        f"{metrics}"
    )


def viewed(folder: Path, logs: list[EvalLog]) -> str:
    """What `inspect view` serves of the logs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    inspect = Path(sys.executable).with_name("inspect")
    command = [str(inspect), "view", "start", "--log-dir", str(folder), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/api"
    try:
        listed = fetched(f"{address}/log-files?log_dir={quote(str(folder))}")
        found = [
            fetched(f"{address}/logs/{quote(file['name'], safe='')}") for file in listed["files"]
        ]
    finally:
        server.terminate()
        server.wait()
    served = {one["eval"]["task"]: len(one["samples"]) for one in found}
    if served != {log.eval.task: len(log.samples or []) for log in logs}:
        raise SystemExit(f"inspect view serves {served}")
    return f"inspect view: {len(listed['files'])} logs listed, samples served: {served}"


def fetched(url: str) -> Any:
    """A page's JSON, once its server is up."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urlopen(url, timeout=PATIENCE) as page:
                return json.load(page)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    main()
