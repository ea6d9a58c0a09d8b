"""Every error brainscan raises on purpose.

    BrainscanError
    ├── UsageError               an argument that cannot be understood
    ├── UnknownModelError        no model of that name
    ├── UnknownHookpointError    the model has no such hookpoint
    ├── UnknownFeatureError      no such latent or neuron
    ├── UnknownDictionaryError   no dictionary of that name
    ├── DictionaryMismatchError  a dictionary made for activations of another shape
    ├── CorpusError              text that is missing, empty or unreadable
    ├── ArtifactError            an artifact that is missing, truncated, altered or of another kind
    ├── FetchError               a download that failed or has the wrong hash
    ├── ModelCallError           a language model that cannot be asked: no key, no such provider
    ├── DiskFullError            no space left
    └── MissingExtraError        an optional dependency is not installed

Each says what was expected, what came, and what to do about it, in one line.
"""

from __future__ import annotations


class BrainscanError(Exception):
    """Base class: one line of what was expected, what was got, and the remedy."""

    def __init__(self, expected: str, got: str, remedy: str) -> None:
        super().__init__(expected, got, remedy)
        self.expected = expected
        self.got = got
        self.remedy = remedy

    def __str__(self) -> str:
        return f"expected {self.expected}; got {self.got}; {self.remedy}"


class UsageError(BrainscanError):
    """An argument that cannot be understood."""


class UnknownModelError(BrainscanError):
    """No model of that name is known or found on disk."""


class UnknownHookpointError(BrainscanError):
    """The model has no such hookpoint."""


class UnknownFeatureError(BrainscanError):
    """The dictionary has no such latent, or the layer no such neuron."""


class UnknownDictionaryError(BrainscanError):
    """No dictionary of that name is shipped or found on disk."""


class DictionaryMismatchError(BrainscanError):
    """The dictionary was made for activations of another shape."""


class CorpusError(BrainscanError):
    """The text is missing, empty, too short or not readable as UTF-8."""


class ArtifactError(BrainscanError):
    """The artifact is missing, truncated, altered, of another kind or of a newer schema."""


class FetchError(BrainscanError):
    """A download failed, or what came has the wrong hash."""


class ModelCallError(BrainscanError):
    """A language model that explains or judges cannot be asked."""


class DiskFullError(BrainscanError):
    """There is no space left to write the artifact."""


class MissingExtraError(BrainscanError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str | None = None) -> None:
        """Names the package, and the extra that brings it, if one does."""
        wanted = f'"brainscan[{extra}]"' if extra else package
        super().__init__(
            f"the package '{package}'", "it is not installed", f"run: pip install {wanted}"
        )
