"""Figures of the second model and of the questions that fewer pixels fail."""

import numpy as np
import pandas as pd
import pytest

from analysis.figures import difficult_questions, second_model
from experiments import figures
from tests.analysis.figures.figure_inputs import write_second_model


@pytest.fixture
def results(tmp_path):
    """A folder with the CSV files that these figures read."""
    write_second_model(tmp_path)
    return tmp_path


def test_the_second_model_has_a_panel_for_each_image_size(results):
    panels = second_model.draw(results).axes
    assert [axes.get_title() for axes in panels] == [
        "scenes-qwen, 96 x 96 pixels, 144 visual tokens",
        "scenes-qwen, 64 x 64 pixels, 64 visual tokens",
    ]


def test_difficult_and_easy_questions_are_drawn_as_measured(results):
    table = pd.read_csv(results / "difficult_questions.csv").dropna(subset="accuracy")
    panels = difficult_questions.draw(results).axes
    assert [axes.get_title() for axes in panels] == [
        "Fewer pixels fail, n = 12 to 12",
        "Fewer pixels suffice, n = 48 to 48",
    ]
    for axes, group in zip(panels, ("difficult", "easy"), strict=True):
        shown = [value for line in axes.containers for value in line[0].get_ydata() if not np.isnan(value)]
        assert sorted(shown) == pytest.approx(sorted(100 * table[table["group"] == group]["accuracy"]))
        at = np.concatenate([line[0].get_xdata() for line in axes.containers])
        assert sorted(at) == pytest.approx([10, 10, 50, 50], rel=0.05), "beside the budgets, none lost"


def test_difficult_questions_need_the_baseline(results):
    table = pd.read_csv(results / "difficult_questions.csv")
    table.iloc[:0].to_csv(results / "difficult_questions.csv", index=False)
    with pytest.raises(ValueError, match="set second_model.downsample to true"):
        figures.draw("difficult_questions", results, results / "out")
