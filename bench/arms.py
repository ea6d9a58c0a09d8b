"""How fast an audit's arms answer, against transformers arm after arm.

1. A small audit of the shipped organism runs once; what it froze and the random sets beside it are
   the arms. Each answers 12 confirmation prompts, a random set 3.
2. transformers: each arm under `intervene`, its prompts in one batch through the model's own
   `generate`, at the same temperature and length.
3. brainscan: all arms as an audit runs them (`auditing.answers`): prompts held once for all arms,
   and what an edit leaves of the untouched answer read instead of written.

Both are in bf16 on one thread. Answers of the two differ by their noise alone, so answers a second
are compared, and the tokens that each wrote stand beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench import setting
from bench.measure import (
    Check,
    Result,
    Row,
    arguments,
    cpu_seconds,
    finish,
    interleaved,
    one_thread,
    ratios,
)

if TYPE_CHECKING:
    from brainscan.auditing.answers import Arm
    from brainscan.auditing.design import Design, Question
    from brainscan.auditing.results import AuditReport, FrozenArm
    from brainscan.interventions import Edit
    from brainscan.models import LanguageModel
    from brainscan.stress.base import StressTest

ORGANISM = "blackmail"
PARTS = 3
PROMPTS, FEW = 12, 3
TARGET = 4.0


def main() -> None:
    quick = arguments(__doc__ or "")
    from brainscan.auditing.design import Design
    from brainscan.models.loading import load
    from brainscan.stress.catalogue import load_test

    lm = load(f"{setting.MODEL}+{ORGANISM}", device="cpu", dtype="bfloat16")
    with TemporaryDirectory() as folder:
        report = audited(lm, Path(folder) / "audit")
        one_thread()
        test = load_test(ORGANISM)
        arms = arms_of(report, Design(test), 2 if quick else PROMPTS)
        n = sum(len(arm.questions) for arm in arms)
        lengths: dict[str, list[int]] = {"brainscan": [], "transformers": []}
        runs = iter(range(100))

        def ours() -> float:
            journal = Path(folder) / f"{next(runs)}.jsonl"
            return n / cpu_seconds(
                lambda: asked(lm, test, arms, report, journal, lengths["brainscan"])
            )

        def theirs() -> float:
            return n / cpu_seconds(
                lambda: generated(lm, test, arms, report, lengths["transformers"])
            )

        ways = {"brainscan": ours, "transformers": theirs}
        found = interleaved(ways, 1 if quick else PARTS)
    result = Result("arms", f"{len(arms)} arms of an audit of {ORGANISM}, {n} answers")
    result.rows = [Row(name, values, "answers / CPU s") for name, values in found.items()]
    result.rows += [
        Row(f"tokens of an answer, {name}", [sum(own) / len(own)], "")
        for name, own in lengths.items()
    ]
    faster = ratios(found["brainscan"], found["transformers"])
    result.checks.append(Check("brainscan over transformers", faster, TARGET))
    finish(result)


def audited(lm: LanguageModel, out: Path) -> AuditReport:
    """An audit to take arms from."""
    from brainscan.auditing import DEMO, audit

    small = {"confirmation": 4, "random_answers": 1, "elsewhere": 0, "benign": 1}
    report = audit(lm, ORGANISM, out, replace(DEMO, cost_passages=2, cost_items=2, **small))
    if not report.arms:
        raise SystemExit("expected an audit that freezes arms; got none: look at its verdicts")
    return report


def arms_of(report: AuditReport, design: Design, n: int) -> list[Arm]:
    """Its arms with their edits and questions."""
    from brainscan.auditing.answers import Arm
    from brainscan.auditing.confirm import TOLD

    target = report.behaviour[0].target

    def questions(most: int, forbidden: bool = False) -> tuple[Question, ...]:
        return tuple(design.questions("confirmation", target, most, forbidden=forbidden))

    def edits(arm: FrozenArm) -> tuple[Edit, ...]:
        return arm.candidate.at(arm.strength) if arm.candidate else ()

    found = [Arm(arm.name, edits(arm), questions(n, arm.name == TOLD)) for arm in report.arms]
    few = questions(min(FEW, n))
    return found + [Arm(arm.name, edits(arm), few) for arm in report.random_arms]


def asked(
    lm: LanguageModel,
    test: StressTest,
    arms: Sequence[Arm],
    report: AuditReport,
    journal: Path,
    lengths: list[int],
) -> None:
    from brainscan.auditing.answers import ask
    from brainscan.auditing.confirm import sampling_of

    found = ask(lm, test, arms, sampling_of(report.config), journal, "arms")
    lengths += [len(one.response) for own in found.values() for one in own]


def generated(
    lm: LanguageModel,
    test: StressTest,
    arms: Sequence[Arm],
    report: AuditReport,
    lengths: list[int],
) -> None:
    import torch

    from brainscan.models import intervene

    tokenizer = lm.tokenizer
    for arm in arms:
        prompts = [lm.chat_tokens(test.prompt(one.asked).messages) for one in arm.questions]
        given = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        torch.manual_seed(0)
        with torch.no_grad(), intervene(lm, arm.edits):
            found = lm.model.generate(
                **given,
                do_sample=True,
                temperature=report.config.temperature,
                top_k=0,
                top_p=1.0,
                max_new_tokens=report.config.max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
        new = found[:, given["input_ids"].shape[1] :]
        ended = (new == tokenizer.eos_token_id).int().cumsum(1)
        lengths += ((ended - (new == tokenizer.eos_token_id).int()) == 0).sum(1).tolist()


if __name__ == "__main__":
    main()
