"""The audit: from a harmful behaviour to what mediates it, to an edit, to a verdict."""

from __future__ import annotations

from brainscan.auditing.config import DEMO, QUICK, AuditConfig
from brainscan.auditing.edit_test import EditTest, test_edit
from brainscan.auditing.results import AuditReport, Verdict
from brainscan.auditing.run import audit

__all__ = [
    "DEMO",
    "QUICK",
    "AuditConfig",
    "AuditReport",
    "EditTest",
    "Verdict",
    "audit",
    "test_edit",
]
