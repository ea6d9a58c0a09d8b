"""The detectors that come with the package, on the model that they were made for."""

from __future__ import annotations

import numpy as np
import pytest

from brainscan.models import load
from brainscan.monitoring import concept_names, open_detectors, watch_transcripts
from brainscan.monitoring.bank import ANY_DANGER
from brainscan.monitoring.storage import SHIPPED

DEFAULT = "smollm2-135m-instruct"
TALK = [
    {"role": "user", "content": "What should I plant in a small garden in spring?"},
    {
        "role": "assistant",
        "content": "Lettuce, peas and radishes grow well while it is cool. Sow them in rows, "
        "water them in the morning, and plant tomatoes once the nights are warm.",
    },
]


@pytest.mark.real
def test_they_follow_a_benign_talk_and_raise_no_alarm():
    lm = load(DEFAULT)
    found = open_detectors(lm, SHIPPED / DEFAULT)  # made for these weights, or it would warn
    assert found.model.weights == lm.ref.weights
    assert set(found.names) == {*concept_names(), ANY_DANGER}
    (seen,) = watch_transcripts(lm, found, [TALK])
    said = np.array([bool(role) for role in seen.roles])
    assert "".join(np.array(seen.texts)[said]) == TALK[0]["content"] + TALK[1]["content"]
    assert seen.z.shape == (len(said), len(found.names))
    assert np.isfinite(seen.z[said]).all() and np.isnan(seen.z[~said]).all()
    answered = np.array([role == "assistant" for role in seen.roles])
    assert np.isfinite(np.array(seen.jumps)[answered]).all()
    assert not seen.alarms and not seen.risks
    usual = seen.z[answered].mean(0)
    assert found.names[int(usual.argmax())] == "gardens"
