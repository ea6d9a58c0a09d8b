"""What the views show, as plain data: text and numbers only, filled in by the rooms above.

Shares are activations as a fraction of the latent's maximum, from 0 to 1; they set the colour.
"""

from __future__ import annotations

from dataclasses import dataclass

from brainscan.stats import Estimate
from brainscan.views.html import Html


@dataclass(frozen=True)
class ExampleView:
    """A stretch of text in which a latent fires."""

    tokens: tuple[str, ...]
    """The text of each token."""
    shares: tuple[float, ...]
    """The latent's activation at each token, as a share of its maximum."""
    peak: int
    """Which token the latent fires on most."""
    activation: float
    """The activation at the peak."""


@dataclass(frozen=True)
class ExampleGroupView:
    """Examples drawn in the same way."""

    name: str
    """How they were drawn, such as "highest" or "50th to 90th percentile"."""
    examples: tuple[ExampleView, ...]
    """The examples, strongest first."""


@dataclass(frozen=True)
class ActivationView:
    """One latent's activation at one token."""

    id: str
    """The latent's address."""
    activation: float
    """The activation itself."""
    share: float
    """The activation as a share of the latent's maximum."""
    label: str = ""
    """A few words on when the latent fires."""


@dataclass(frozen=True)
class TokenView:
    """One token of a scanned text."""

    text: str
    """The token's text."""
    position: int
    """Where it stands in its sequence."""
    latents: tuple[ActivationView, ...]
    """The most active latents, strongest first."""
    sink: bool = False
    """Whether it is an attention sink, of which a dictionary says nothing."""


@dataclass(frozen=True)
class LatentView:
    """What a token strip tells of a latent."""

    id: str
    """Its address."""
    label: str
    """A few words on when it fires."""
    examples: tuple[ExampleView, ...] = ()
    """Where it fired most."""
    promoted: tuple[str, ...] = ()
    """The output tokens it promotes most."""
    shares: tuple[float, ...] = ()
    """Its share at every token of the strip, if the strip may be coloured by it; else empty."""


@dataclass(frozen=True)
class ScoredTokenView:
    """An output token with the change of its logit."""

    text: str
    """The token's text."""
    value: float
    """How much one unit of activation changes its logit."""


@dataclass(frozen=True)
class NeighbourView:
    """A latent that points the same way."""

    id: str
    """Its address."""
    label: str
    """A few words on when it fires."""
    cosine: float
    """The cosine between the decoder rows."""


@dataclass(frozen=True)
class CardView:
    """All that an atlas says of a latent."""

    id: str
    """Its address."""
    label: str
    """A few words on when it fires."""
    grade: str
    """How well the description was tested: A, B, C, or U for untested."""
    firing_rate: float
    """The share of tokens on which it fires."""
    maximum: float
    """The largest activation seen."""
    quantiles: tuple[tuple[float, float], ...]
    """Quantiles of the activations above zero: (fraction, activation)."""
    groups: tuple[ExampleGroupView, ...]
    """Its examples."""
    promoted: tuple[ScoredTokenView, ...]
    """Output tokens whose logits it raises most."""
    suppressed: tuple[ScoredTokenView, ...]
    """Output tokens whose logits it lowers most."""
    neighbours: tuple[NeighbourView, ...] = ()
    """The nearest latents of the same dictionary."""


@dataclass(frozen=True)
class RateView:
    """A figure to draw as a bar with its interval."""

    label: str
    """What was measured."""
    estimate: Estimate
    """The figure."""
    control: bool = False
    """Whether it is a control, drawn in grey."""


@dataclass(frozen=True)
class CurveView:
    """How a measure answers to the strength of an edit."""

    name: str
    """What was edited."""
    strengths: tuple[float, ...]
    """The strengths tried, rising."""
    estimates: tuple[Estimate, ...]
    """The measure at each strength."""
    control: bool = False
    """Whether it is a control, drawn in grey and dashed."""


@dataclass(frozen=True)
class GenerationView:
    """An answer under one setting."""

    title: str
    """The setting, such as "without the edit" or "2 times the maximum"."""
    tokens: tuple[str, ...]
    """The answer, token by token (or whole, as one)."""
    shares: tuple[float, ...] = ()
    """How strongly to colour each token, from 0 to 1; empty for no colour."""
    notes: tuple[str, ...] = ()
    """Short remarks below the answer, such as its cost."""
    control: bool = False
    """Whether it is a control."""


@dataclass(frozen=True)
class HeatCellView:
    """One cell of a heat map."""

    estimate: Estimate
    """The figure, a share; it sets the colour."""
    note: str = ""
    """What else to say of it when it is pointed at."""


@dataclass(frozen=True)
class HeatMapView:
    """Shares by two things at once."""

    title: str
    """What it shows, in words."""
    corner: str
    """What the rows are."""
    rows: tuple[str, ...]
    """The rows' names."""
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    """Groups of columns, each with its name and its columns' names."""
    cells: tuple[tuple[HeatCellView | None, ...], ...]
    """For each row its cells, over all groups; None where nothing was measured."""


@dataclass(frozen=True)
class StretchView:
    """A stretch of an answer."""

    text: str
    """Its text."""
    kind: str = ""
    """What it is: an action's kind, ``thought`` for what was only thought, ``decision`` for the
    decision token; empty for plain text."""
    label: str = ""
    """A few words to put before it."""


@dataclass(frozen=True)
class TranscriptView:
    """What a model was told and what it answered."""

    outcome: str
    """What came of it, in a word."""
    title: str
    """Which one it is."""
    notes: tuple[str, ...]
    """Short remarks on it."""
    prompt: tuple[tuple[str, str], ...]
    """The messages that it was given: role and text."""
    answer: tuple[StretchView, ...]
    """The answer, with what was done in it marked."""
    stages: tuple[tuple[str, bool], ...]
    """Names of stages, and whether it passed them."""


@dataclass(frozen=True)
class VerdictView:
    """What is said of a claim, and why."""

    claim: str
    """The claim, in plain words."""
    status: str
    """``supported``, ``not supported`` or ``inconclusive``."""
    reason: str
    """What the verdict rests on, in a sentence."""
    details: tuple[str, ...] = ()
    """More on it, to be unfolded."""


@dataclass(frozen=True)
class LocationView:
    """How much of an effect is recovered by patching one place."""

    title: str
    """What it shows, in words."""
    rows: tuple[str, ...]
    """Hookpoints or layers."""
    columns: tuple[str, ...]
    """Positions: the tokens' texts, or names of spans."""
    values: tuple[tuple[float | None, ...], ...]
    """For each row the share recovered at each position; None where nothing was measured."""
    marked: tuple[tuple[int, int], ...] = ()
    """The cells that were chosen, as numbers of row and column."""
    note: str = ""
    """What else to say of it, below."""


@dataclass(frozen=True)
class ArmView:
    """An arm of an experiment: what it leaves of the harm, and what it costs."""

    name: str
    """Which arm it is."""
    kind: str
    """What kind of arm, such as "features, steered"; those of a kind share colour and symbol."""
    harmful: Estimate
    """The harmful rate under it."""
    cost: Estimate
    """KL on neutral text, in nats per token."""
    notes: tuple[str, ...] = ()
    """Short remarks for the table."""
    control: bool = False
    """Whether it is a control, drawn in grey."""
    chosen: bool = False
    """Whether it is the arm that was chosen, drawn with a ring."""
    random: bool = False
    """Whether it edits features drawn at random; such arms are many, drawn small and unnamed."""


@dataclass(frozen=True)
class ComparisonView:
    """An answer without and with an edit."""

    title: str
    """Which one it is."""
    before: tuple[StretchView, ...]
    """The untouched answer; the decision token is a stretch of the kind ``decision``."""
    after: tuple[StretchView, ...]
    """The answer under the edit."""
    labels: tuple[str, str] = ("untouched", "edited")
    """What to call the two."""
    figures: tuple[str, str] = ("", "")
    """A line of figures below each."""


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    title: str
    """Its heading; empty for none, on a page with one section."""
    body: Html
    """What it shows, as one of the views made it."""
    lead: str = ""
    """A sentence or two before it."""
