"""What methods tell of themselves, and what others make of it."""

import pytest

import pruning
from analysis.figures.shared import style
from pruning import registry
from pruning.methods.fastv import FastV
from pruning.methods.oracle import Oracle
from pruning.methods.sequence import Sequence
from pruning.methods.vispruner import VisPruner

LINES = {"before": "-", "inside": "--", "both": "-."}


@pytest.mark.parametrize("name", pruning.names())
def test_figures_show_a_method_as_it_tells_of_itself(name):
    method, look = registry.get(name), style.look(name)
    assert look.label == method.label
    if method.role in LINES:
        assert look.line == LINES[method.role]
    else:
        assert name in style.ordered(pruning.names())[: len(registry.of_role("reference") + registry.of_role("oracle"))]


def test_roles_say_where_a_method_prunes():
    for name in pruning.names():
        method = registry.get(name)
        inside = issubclass(method, pruning.InsideLLM)
        assert {"before": not inside, "inside": inside}.get(method.role, True), name
    assert registry.of_role("oracle") == ("oracle", "oracle_inside")
    assert registry.of_role("both") == ("vscan", "flashvid", "sequence")


def test_a_method_is_told_about_each_question_and_writes_nothing_of_it():
    questions = [{"boxes": [[0, 0, 1, 1]], "question": "red ?"}, {"boxes": [], "question": "blue ?"}]
    told = Sequence([Oracle(keep=4), FastV(k=2)]).for_questions(questions)
    assert told.methods[0].boxes == [[[0, 0, 1, 1]], []]
    assert told.written()["methods"] == [
        {"name": "oracle", "keep": 4, "seed": 0},
        {"name": "fastv", **FastV(k=2).written()},
    ]
    assert VisPruner(keep=4).for_questions(questions) == VisPruner(keep=4)
    assert VisPruner(positions="original").written()["positions"] == "original"


def test_repeating_the_prompt_uses_no_cache():
    assert VisPruner().uses_cache and FastV().uses_cache
    assert not FastV(mode="repeat").uses_cache
    assert not Sequence([VisPruner(), FastV(mode="repeat")]).uses_cache


def test_the_full_model_has_no_parameters():
    with pytest.raises(ValueError, match="full has no parameter 'positions'"):
        pruning.make("full", positions="original")
