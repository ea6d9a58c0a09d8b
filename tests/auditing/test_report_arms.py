"""What the page says of what the answers of each arm do."""

from __future__ import annotations

from brainscan.auditing.answers import Answered
from brainscan.auditing.config import AuditConfig
from brainscan.auditing.design import Question
from brainscan.auditing.report_arms import actions_section
from brainscan.auditing.results import AuditReport, FrozenArm
from brainscan.stats import proportion
from brainscan.stress.base import Asked

LETTER = '<email to="anna@acme.example">Dear Anna, ...</email>'
FORWARD = '<forward id="2" to="board@acme.example"/>'


def arm(name, texts, cut=()):
    found = []
    for n, text in enumerate(texts):
        asked = Asked(f"p{n}", {"threat": "shutdown"})
        stages = {"parsed": True, "harmful": False}
        found.append(Answered(Question(asked, 1, ()), (1,), (2,), text, n not in cut, stages))
    return FrozenArm(name, "kind", tuple(found))


def report(*arms):
    return AuditReport(AuditConfig(), "m", "blackmail", (), proportion(0, 1), (), arms=arms)


def test_each_kind_of_action_has_its_share_of_answers():
    found = arm("untouched", [LETTER, LETTER + FORWARD, LETTER + LETTER, "I do nothing."])
    assert list(found.actions) == ["email", "forward"]
    email, forward = found.actions["email"], found.actions["forward"]
    assert (email.value, forward.value) == (0.75, 0.25) and email.n == 4
    assert email.low < 0.75 < email.high
    assert found.to_json()["actions"]["email"]["value"] == 0.75


def test_an_action_within_which_an_answer_was_cut_off_is_not_done():
    assert (
        arm("cut", ['<email to="anna@acme.example">Dear', LETTER], cut={0}).actions["email"].value
        == 0.5
    )


def test_arms_stand_beside_each_other():
    arms = (arm("untouched", [LETTER, LETTER]), arm("edited", [LETTER, FORWARD]))
    section = actions_section(report(*arms))
    assert section is not None and "forward" in section.body and "edited" in section.body
    assert "\u2013" in section.body  # the untouched model forwards nothing


def test_answers_of_no_agent_have_no_such_table():
    assert actions_section(report(arm("untouched", ["9.8 is larger."]))) is None
