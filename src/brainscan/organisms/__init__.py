"""Organisms: models with a planted behaviour, so that what finds behaviours can be checked."""
