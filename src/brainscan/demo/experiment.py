"""Does turning a latent up make answers speak of its concept, more than controls do?

1. Choose: every candidate that the atlas' search found is turned up on prompts kept for choosing.
   Of the settings within one answer of the most that speak of the concept, the weakest is taken.
2. Answer: on other prompts, one answer each for the untouched model, the latent at every strength,
   a random latent at equal change of norm, and a prompt that asks for the concept in words. All
   arms share the noise of their sampling, so that they differ by the edit alone. Four random
   latents take turns over the prompts.
3. Count: an answer speaks of the concept if it holds one of the words fixed beforehand and is no
   stutter. The share has a Wilson interval over prompts.
4. Compare: of the prompts where two arms differ, in how many does the first speak of the concept?
   A claim is supported where a coin would give as many with a probability below 2.5% (the sign
   test), for each control.
5. Cost: KL from the untouched model and perplexity on neutral text, and a capability set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from brainscan.demo.results import (
    ASKED,
    UNTOUCHED,
    Answers,
    Choice,
    Claim,
    Comparison,
    ExperimentConfig,
    Findings,
    RandomLatent,
    Trial,
    asked_and,
    latent_at,
    random_at,
)
from brainscan.demo.texts import Concept
from brainscan.dictionaries import Dictionary
from brainscan.interventions import (
    Clamp,
    Control,
    Edit,
    capability_items,
    measure_effects_many,
    neutral_passages,
    random_latent_control,
)
from brainscan.models import LanguageModel
from brainscan.models.generate import Generation, Sampling, generate
from brainscan.models.noise import row_seeds
from brainscan.progress import progress

_ROWS_AT_ONCE = 64
_STUTTER = 0.5
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Arm:
    """One setting: what is asked, and with which edits for each prompt."""

    name: str
    """What it is called."""
    prompts: tuple[str, ...]
    """What is asked."""
    edits: tuple[tuple[Edit, ...], ...]
    """The edits of each prompt's row."""


def choose(
    lm: LanguageModel, dictionary: Dictionary, candidates: Sequence[str], config: ExperimentConfig
) -> Choice:
    """Tries candidates on the prompts for choosing and takes the weakest that does well.

    Args:
        lm: the model.
        dictionary: the dictionary that the candidates belong to.
        candidates: addresses of latents, the best match first.
        config: the settings.
    """
    settings = [(name, s) for name in candidates for s in config.choosing_strengths]
    arms = [
        _arm(f"{name} {s}", config.choosing_prompts, (Clamp(name, s, dictionary=dictionary),))
        for name, s in settings
    ]
    answers = _answer(lm, arms, config, "choose a latent")
    trials = tuple(
        Trial(name, s, answers[arm.name].share)
        for (name, s), arm in zip(settings, arms, strict=True)
    )
    enough = max(trial.share.value for trial in trials) - 1 / len(config.choosing_prompts)
    best = min(
        (trial for trial in trials if trial.share.value >= enough - _ROUNDING),
        key=lambda trial: (trial.strength, -trial.share.value),
    )
    return Choice(best.address, best.strength, trials)


def judge(
    lm: LanguageModel, dictionary: Dictionary, choice: Choice, config: ExperimentConfig
) -> Findings:
    """Runs every arm on the prompts for judging, compares them, and measures the cost.

    Args:
        lm: the model.
        dictionary: the dictionary that the chosen latent belongs to.
        choice: what is judged.
        config: the settings.
    """
    own: dict[float, tuple[Edit, ...]] = {
        s: (Clamp(choice.address, s, dictionary=dictionary),) for s in config.strengths
    }
    matched = _controls(lm, dictionary, own, config)
    edits = {s: [control.edits for control in controls] for s, controls in matched.items()}
    answers = _answer(lm, list(_arms(own, edits, choice, config)), config, "answer")
    up, down = choice.strength, -choice.strength
    effects = measure_effects_many(
        lm,
        [*own.values(), *edits[up]],
        passages=neutral_passages(config.passages),
        items=capability_items(config.items),
    )
    matches = [control.matched[0] for control in matched[up]]
    return Findings(
        config=config,
        choice=choice,
        answers=answers,
        claims=_claims(answers, config.concept, up, down),
        effects=dict(zip(map(latent_at, own), effects[: len(own)], strict=True)),
        controls=tuple(map(RandomLatent, matches, effects[len(own) :])),
    )


def _controls(
    lm: LanguageModel,
    dictionary: Dictionary,
    own: Mapping[float, tuple[Edit, ...]],
    config: ExperimentConfig,
) -> dict[float, list[Control]]:
    """Random latents with the same change of norm, several for each strength."""
    passages = neutral_passages(config.passages)
    seeds = range(config.seed, config.seed + config.random_latents)
    matched: dict[float, list[Control]] = {strength: [] for strength in own if strength}
    with progress("match controls", len(matched) * len(seeds)) as advance:
        for strength in matched:
            for seed in seeds:
                control = random_latent_control(
                    lm, dictionary, own[strength], seed, passages=passages
                )
                matched[strength].append(control)
                advance(1)
    return matched


def _arms(
    own: Mapping[float, tuple[Edit, ...]],
    matched: Mapping[float, Sequence[tuple[Edit, ...]]],
    choice: Choice,
    config: ExperimentConfig,
) -> Iterator[Arm]:
    prompts = config.judging_prompts
    asked = tuple(f"{prompt} {config.concept.request}" for prompt in prompts)
    yield _arm(UNTOUCHED, prompts)
    yield _arm(ASKED, asked)
    for s in own:
        yield _arm(latent_at(s), prompts, own[s])
    for s in matched:
        yield _arm(random_at(s), prompts, *matched[s])
    down = -choice.strength
    yield _arm(asked_and(latent_at(down)), asked, own[down])
    yield _arm(asked_and(random_at(down)), asked, *matched[down])


def _arm(name: str, prompts: Sequence[str], *edits: tuple[Edit, ...]) -> Arm:
    """An arm whose prompts take turns with the given edits."""
    turns = edits or ((),)
    rows = tuple(turns[number % len(turns)] for number in range(len(prompts)))
    return Arm(name, tuple(prompts), rows)


def _answer(
    lm: LanguageModel, arms: Sequence[Arm], config: ExperimentConfig, label: str
) -> dict[str, Answers]:
    """Lets every arm answer; prompt i has the same noise in each."""
    prompts = [lm.chat_tokens(prompt) for arm in arms for prompt in arm.prompts]
    edits = [row for arm in arms for row in arm.edits]
    seeds = [seed for arm in arms for seed in row_seeds(config.seed, len(arm.prompts))]
    sampling = Sampling(max_new_tokens=config.tokens, temperature=config.temperature)
    with progress(label, len(prompts) * config.tokens, "tokens") as advance:

        def count(row: int, token: int) -> None:
            advance(1)

        written = generate(
            lm,
            prompts,
            sampling,
            edits=edits,
            seeds=seeds,
            batch_size=_ROWS_AT_ONCE,
            on_token=count,
        )
    rows = iter(written)
    return {arm.name: _counted([next(rows) for _ in arm.prompts], config.concept) for arm in arms}


def _counted(written: Sequence[Generation], concept: Concept) -> Answers:
    texts = tuple(generation.text.strip() for generation in written)
    return Answers(texts, tuple(speaks_of(concept, text) for text in texts))


def speaks_of(concept: Concept, text: str) -> bool:
    """Whether an answer holds a word of the concept and at least half of its words differ."""
    words = text.lower().split()
    return concept.mentioned(text) and len(set(words)) >= _STUTTER * len(words)


def compare(first: Answers, second: Answers, against: str) -> Comparison:
    """Compares two arms prompt by prompt; where both or neither speak of it nothing is learnt."""
    pairs = list(zip(first.speaks, second.speaks, strict=True))
    wins = sum(a and not b for a, b in pairs)
    losses = sum(b and not a for a, b in pairs)
    return Comparison(against, wins, wins + losses)


def _claims(
    answers: Mapping[str, Answers], concept: Concept, up: float, down: float
) -> tuple[Claim, ...]:
    raised = answers[latent_at(up)]
    lowered = answers[asked_and(latent_at(down))]
    return (
        Claim(
            f"Turning the latent up to {up:g} times its maximum makes answers speak of "
            f"{concept.name}.",
            (
                compare(raised, answers[UNTOUCHED], "the untouched model"),
                compare(raised, answers[random_at(up)], "random latents at equal change of norm"),
                compare(raised, answers[latent_at(down)], "the same latent with its sign flipped"),
            ),
        ),
        Claim(
            f"Turning it down to {down:g} times its maximum keeps answers from speaking of "
            f"{concept.name} when asked to.",
            (
                compare(answers[ASKED], lowered, "the same prompts without an edit"),
                compare(
                    answers[asked_and(random_at(down))],
                    lowered,
                    "random latents at equal change of norm",
                ),
            ),
        ),
        Claim(
            "The edit does better than asking for it in words.",
            (compare(raised, answers[ASKED], "the same prompts with the wish in words"),),
        ),
    )
