"""Stress tests: any Inspect task on a model with edits and capture."""
