"""Reading an atlas: cards, labels, and search, with DuckDB over its Parquet tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainscan import artifacts
from brainscan.dictionaries import Address
from brainscan.errors import ArtifactError, UnknownFeatureError, UsageError
from brainscan.features.card import FeatureCard, Hit
from brainscan.features.examples import BANDS, QUANTILES, share_values
from brainscan.features.index import KIND, build_atlas, dictionary_digest
from brainscan.features.label import GRADE
from brainscan.features.search import search, terms
from brainscan.views import ExampleGroupView, ExampleView, NeighbourView, ScoredTokenView

if TYPE_CHECKING:
    from brainscan.dictionaries import Dictionary
    from brainscan.models import LanguageModel

SHIPPED = Path(__file__).parent / "shipped"

_TABLES = ("latents", "examples", "words", "forms", "outputs", "neighbours", "vocabulary")


class _Example(NamedTuple):
    latent: int
    band: int
    view: ExampleView


class Atlas:
    """The described latents of a dictionary."""

    def __init__(self, path: Path, manifest: artifacts.Manifest) -> None:
        """Opens the tables of an atlas that has been checked; see `open`."""
        import duckdb

        self.path = path
        self.manifest = manifest
        self.hookpoint = manifest.hookpoints[0]
        self._tables = duckdb.connect(config={"threads": 1})
        for name in _TABLES:
            self._tables.read_parquet(str(path / f"{name}.parquet")).create_view(name)

    def __repr__(self) -> str:
        return f"Atlas('{self.path}', {self.n_latents} latents of {self.hookpoint})"

    @classmethod
    def open(cls, path: str | Path) -> Atlas:
        """Opens an atlas.

        Raises:
            ArtifactError: the folder holds no atlas, or its files were altered.
        """
        return cls(Path(path), artifacts.open_artifact(path, kind=KIND))

    @classmethod
    def find(cls, dictionary: Dictionary) -> Atlas | None:
        """The atlas of a dictionary that is shipped or was built before, if there is one."""
        digest = dictionary_digest(dictionary)
        for folder in (SHIPPED / dictionary.name, _cached(digest)):
            try:
                manifest = artifacts.read_manifest(folder, kind=KIND)
            except ArtifactError:
                continue
            if manifest.parents.get("dictionary") == digest:
                return cls.open(folder)
        return None

    @classmethod
    def for_dictionary(cls, dictionary: Dictionary, lm: LanguageModel | None = None) -> Atlas:
        """The atlas of a dictionary: shipped, built before, or built now from the built-in corpus.

        Args:
            dictionary: the dictionary.
            lm: its model, if an atlas must be built; loaded by name when left out.
        """
        found = cls.find(dictionary)
        if found is not None:
            return found
        from brainscan.activations import open_corpus
        from brainscan.models import load

        if lm is None and dictionary.model is None:
            raise UsageError(
                f"the model of {dictionary.name}, to build its atlas",
                "a dictionary that does not record its model",
                "give the model",
            )
        lm = lm or load(dictionary.model.id)  # type: ignore[union-attr]
        folder = _cached(dictionary_digest(dictionary))
        return cls.open(build_atlas(lm, dictionary, open_corpus(), out=folder))

    @cached_property
    def n_latents(self) -> int:
        """How many latents there are."""
        return int(self.manifest.figures["latents"])

    def feature(self, address: str | Address) -> FeatureCard:
        """The card of a latent.

        Raises:
            UnknownFeatureError: the atlas has no such latent.
        """
        latent = self._checked(address)
        fired, maximum, quantiles, label = self._rows(
            "SELECT fired, maximum, quantiles, label FROM latents WHERE latent = ?", latent
        )[0]
        return FeatureCard(
            id=self._address(latent),
            label=label,
            grade=GRADE,
            firing_rate=fired / self.manifest.figures["tokens"],
            maximum=maximum,
            quantiles=tuple(zip(QUANTILES, quantiles, strict=True)),
            groups=self._groups(latent),
            promoted=self._outputs(latent, 1),
            suppressed=self._outputs(latent, -1),
            neighbours=self._neighbours(latent),
        )

    def label(self, address: str | Address) -> str:
        """A few words on when a latent fires.

        Raises:
            UnknownFeatureError: the atlas has no such latent.
        """
        return self.labels([self._checked(address)])[0]

    def labels(self, latents: Sequence[int]) -> list[str]:
        """The labels of latents, by number."""
        rows = self._rows(
            "SELECT latent, label FROM latents WHERE latent IN (SELECT unnest(?))", list(latents)
        )
        found = dict(rows)
        return [found[latent] for latent in latents]

    def search(self, query: str, limit: int = 10) -> list[Hit]:
        """The latents that fire on the query's words or promote them, best first.

        Raises:
            UsageError: the query holds nothing to search for, or the limit is below 1.
        """
        if limit < 1:
            raise UsageError("a limit of at least 1", str(limit), "raise it")
        matches = search(self._tables, terms(query), self.n_latents, limit)
        latents = [match.latent for match in matches]
        labels, examples = self.labels(latents), self.examples(latents, 3)
        return [
            Hit(self._address(match.latent), label, match.score, examples[match.latent])
            for match, label in zip(matches, labels, strict=True)
        ]

    def examples(self, latents: Sequence[int], limit: int) -> Mapping[int, tuple[ExampleView, ...]]:
        """The strongest examples of latents, by number."""
        rows = self._rows(
            "SELECT * FROM examples WHERE band = 0 AND latent IN (SELECT unnest(?)) "
            "QUALIFY row_number() OVER (PARTITION BY latent ORDER BY activation DESC, peak) <= ? "
            "ORDER BY latent, activation DESC, peak",
            list(latents),
            limit,
        )
        found: dict[int, tuple[ExampleView, ...]] = dict.fromkeys(latents, ())
        for example in self._views(rows):
            found[example.latent] += (example.view,)
        return found

    def promoted(self, latents: Sequence[int], limit: int) -> Mapping[int, tuple[str, ...]]:
        """The output tokens that latents promote most, by number."""
        rows = self._rows(
            "SELECT latent, text FROM outputs JOIN vocabulary USING (token) WHERE rank > 0 "
            "AND rank <= ? AND latent IN (SELECT unnest(?)) ORDER BY latent, rank",
            limit,
            list(latents),
        )
        found: dict[int, tuple[str, ...]] = dict.fromkeys(latents, ())
        for latent, text in rows:
            found[latent] += (text,)
        return found

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._tables.execute(query, values).fetchall()

    def _address(self, latent: int) -> str:
        return str(Address(self.hookpoint, latent))

    def _checked(self, address: str | Address) -> int:
        if isinstance(address, str):
            address = Address.parse(address)
        known = address.hookpoint == self.hookpoint and not address.sign
        if not known or address.index >= self.n_latents:
            raise UnknownFeatureError(
                f"a latent from {self._address(0)} to {self._address(self.n_latents - 1)}",
                str(address),
                "`brainscan atlas search` prints addresses",
            )
        return address.index

    def _groups(self, latent: int) -> tuple[ExampleGroupView, ...]:
        rows = self._rows(
            "SELECT * FROM examples WHERE latent = ? ORDER BY band, activation DESC, peak", latent
        )
        examples = list(self._views(rows))
        groups = (
            ExampleGroupView(name, tuple(e.view for e in examples if e.band == band))
            for band, name in enumerate(BANDS)
        )
        return tuple(group for group in groups if group.examples)

    def _outputs(self, latent: int, sign: int) -> tuple[ScoredTokenView, ...]:
        rows = self._rows(
            "SELECT text, value FROM outputs JOIN vocabulary USING (token) "
            "WHERE latent = ? AND rank * ? > 0 ORDER BY abs(rank)",
            latent,
            sign,
        )
        return tuple(ScoredTokenView(text, value) for text, value in rows)

    def _neighbours(self, latent: int) -> tuple[NeighbourView, ...]:
        rows = self._rows(
            "SELECT other, label, cosine FROM neighbours JOIN latents ON latents.latent = other "
            "WHERE neighbours.latent = ? ORDER BY rank",
            latent,
        )
        return tuple(NeighbourView(self._address(n), label, cosine) for n, label, cosine in rows)

    def _views(self, rows: Iterable[tuple[Any, ...]]) -> Iterable[_Example]:
        for latent, band, peak, before, activation, shares in rows:
            start = peak - before
            tokens = self._text[start : start + len(shares)]
            strings = tuple(self._strings[token] for token in tokens.tolist())
            view = ExampleView(strings, share_values(shares), before, activation)
            yield _Example(latent, band, view)

    @cached_property
    def _text(self) -> NDArray[np.int32]:
        from pyarrow import parquet

        column = parquet.read_table(self.path / "text.parquet", columns=["token"])["token"]
        return np.asarray(column.to_numpy(), np.int32)

    @cached_property
    def _strings(self) -> dict[int, str]:
        return dict(self._rows("SELECT token, text FROM vocabulary"))


def _cached(digest: str) -> Path:
    return artifacts.cache_dir() / "atlases" / digest
