"""Dictionaries: sparse codes of a hookpoint's activations."""

from brainscan.dictionaries.base import Address, Dictionary, SparseCode, shipped_dictionaries

__all__ = ["Address", "Dictionary", "SparseCode", "shipped_dictionaries"]
