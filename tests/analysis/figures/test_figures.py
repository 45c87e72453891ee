"""Figures from synthetic results: they draw what the CSV files hold, any method, and always the same bytes."""

import importlib
import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.container import BarContainer
from matplotlib.text import Text
from PIL import Image

from analysis.figures.shared import style
from experiments import figures
from pruning import registry
from tests.analysis.figures.figure_inputs import (
    CAPS,
    METHODS,
    TYPES,
    write_accuracy,
    write_all,
    write_images,
    write_kept_tokens,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """A folder with every CSV file the figures read, and the images beside it."""
    write_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", figures.names())
def test_pdf_and_png_at_their_width_same_bytes_twice(name, results):
    first = [path.read_bytes() for path in figures.draw(name, results, results / "one")]
    assert first == [path.read_bytes() for path in figures.draw(name, results, results / "two")]
    assert sorted(path.name for path in (results / "one").iterdir()) == [f"{name}.pdf", f"{name}.png"]
    pdf, png = first
    assert b"/Type3" not in pdf, "fonts are embedded as TrueType"
    assert b"/FontFile2" in pdf
    with Image.open(io.BytesIO(png)) as picture:
        inches = picture.width / 150
    assert inches == pytest.approx(style.COLUMN_WIDTH, abs=0.01) or inches == pytest.approx(style.PAGE_WIDTH, abs=0.01)


def drawn(name: str, results: Path):
    with style.applied():
        return importlib.import_module(f"analysis.figures.{name}").draw(results)


@pytest.mark.parametrize("name", ["significance", "pareto", "accuracy_against_budget"])
def test_nothing_is_cut_off_at_the_edges(name, tmp_path):
    with style.applied():
        figure = importlib.import_module(f"analysis.figures.{name}").draw(ROOT / "results")
        style.save(figure, tmp_path, name)
    inches, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert inches.x0 >= -0.01 and inches.y0 >= -0.01
    assert inches.x1 <= width + 0.01 and inches.y1 <= height + 0.01


def legend_of(figure) -> dict[str, str]:
    """Label -> colour of every legend entry but the headings."""
    (legend,) = figure.legends
    lines = [line for line in legend.get_lines() if (line.get_marker(), line.get_linestyle()) != ("None", "None")]
    return {line.get_label(): line.get_color() for line in lines}


@pytest.mark.parametrize("name", ["accuracy_against_budget", "accuracy_against_flops", "visual_tokens_per_layer"])
def test_the_legend_of_all_methods_fits_the_figure(name, results):
    write_accuracy(results, registry.names())
    figure = drawn(name, results)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_window_extent().x0 >= 0 and legend.get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize("name", ["accuracy_against_budget", "accuracy_against_flops", "visual_tokens_per_layer"])
def test_every_method_of_the_csv_is_drawn_in_its_own_colour(name, results):
    write_accuracy(results, (*METHODS, "a_new_method"))
    shown = legend_of(drawn(name, results))
    assert shown == {style.look(m).label: style.look(m).colour for m in (*METHODS, "a_new_method")}
    write_accuracy(results, ("full", "random", "fastv"))
    assert set(legend_of(drawn(name, results))) == {"Full model", "Random", "FastV"}


def test_points_and_intervals_are_those_of_the_csv(results):
    axes = drawn("accuracy_against_flops", results).axes[0]
    table = pd.read_csv(results / "accuracy.csv")
    expected = table[(table["type"] == "all") & (table["method"] == "vispruner")].sort_values("flops")
    colour = style.look("vispruner").colour
    line = next(line for line in axes.lines if line.get_color() == colour and len(line.get_xdata()) == 6)
    np.testing.assert_allclose(line.get_xydata(), np.stack([expected["flops"], 100 * expected["accuracy"]], axis=1))
    ends = [bar.get_segments() for bar in axes.collections if len(bar.get_segments()) == 6]
    lows = [[segment[0][1] for segment in segments] for segments in ends]
    assert any(np.allclose(low, 100 * expected["ci_low"]) for low in lows)


def test_budgets_a_method_cannot_reach_are_left_out(results):
    panels = [axes for axes in drawn("visual_tokens_per_layer", results).axes if axes.get_visible()]
    by_title = {axes.get_title(): axes for axes in panels}
    fastv = style.look("fastv").colour
    assert any(line.get_color() == fastv for line in by_title["Budget 50%"].lines)
    assert not any(line.get_color() == fastv for line in by_title["Budget 5.6%"].lines)


def test_kept_tokens_shows_methods_boxes_and_answers(results):
    figure = drawn("kept_tokens", results)
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert {"Full model", "VisPruner", "FastV"} <= set(texts)
    assert any(text.endswith("✓") for text in texts)
    assert any(text.endswith("✗") for text in texts)
    boxes = [patch for axes in figure.findobj(Axes) for patch in axes.patches]
    assert len(boxes) == 2 * len(METHODS)
    np.testing.assert_allclose(boxes[0].get_bbox().extents, [0.1, 0.1, 0.4, 0.5])


def test_tokens_merged_into_one_are_tinted_alike(results):
    figure = drawn("kept_tokens", results)
    titled = [axes for axes in figure.findobj(Axes) if axes.get_title() == "VisPruner"]
    cells = titled[0].images[1].get_array().reshape(-1, 4)
    assert len(np.unique(cells[:3], axis=0)) == len(np.unique(cells[3:5], axis=0)) == 1
    assert (cells[0] != cells[3]).any() and (cells[0, :3] != 1).any()
    assert (cells[5:, :3] == 1).all(), "what is not merged is veiled in white"
    assert any("Tinted alike" in text.get_text() for text in figure.findobj(Text))


def test_glimpse_by_cap_stands_beside_its_rivals_and_the_published_numbers(results):
    write_accuracy(results, (*METHODS, "visionzip", "pyramiddrop"))
    ours, theirs, shares = drawn("glimpse_caps", results).axes
    colour = style.look("glimpse").colour
    (line,) = [line for line in ours.lines if line.get_color() == colour and line.get_linestyle() != "None"]
    np.testing.assert_allclose(line.get_xydata(), [[100 * cap, 80 + 10 * cap] for cap in CAPS[::-1]])
    assert {style.look(method).colour for method in ("visionzip", "pyramiddrop")} <= {
        line.get_color() for line in ours.lines
    }
    (published,) = [line for line in theirs.lines if line.get_color() == colour]
    np.testing.assert_allclose(published.get_ydata(), [0.761, 0.764, 0.765, 0.764])
    assert theirs.get_title(loc="right") == "as published"
    kinds = [kind.replace("_", " ") for kind in TYPES[1:]]
    assert [label.get_text() for label in shares.get_yticklabels()] == kinds, "by median"


def test_glimpse_depth_has_flops_by_cap_and_masks_without_one(results):
    accuracy, cost, masks = drawn("glimpse_depth", results).axes
    assert {text.get_text() for text in cost.get_legend().get_texts()} == {"no cap", "cap 11.1%"}
    for line in cost.lines[:2]:
        assert line.get_xydata() == pytest.approx(np.array([[2, 60], [3, 70], [4, 80]]))
    recall = next(line for line in masks.lines if line.get_label() == "recall")
    assert recall.get_ydata().tolist() == pytest.approx([0.2, 0.4, 0.6])
    colour = style.look("glimpse").colour
    trained = next(line for line in accuracy.lines if line.get_color() == colour and len(line.get_xdata()) == 3)
    assert sorted(trained.get_xdata()) == [2, 3, 4]


def test_glimpse_examples_veil_what_left_and_frame_the_evidence(results):
    figure = drawn("glimpse_examples", results)
    assert [axes.get_xlabel() for axes in figure.axes] == ["red ✓  kept 12%"] * 2 + ["blue ✗  kept 19%"] * 2
    for axes, kept in zip(figure.axes, [[0, 5]] * 2 + [[10, 11, 15]] * 2, strict=True):
        veil = axes.images[1].get_array().reshape(-1, 4)[:, 3]
        assert np.flatnonzero(veil == veil.min()).tolist() == kept
        (box,) = axes.patches
        np.testing.assert_allclose(box.get_bbox().extents, [0.1, 0.1, 0.4, 0.5])


def test_glimpse_examples_need_their_images(results):
    write_images(results / "data/scenes/evaluation.parquet", ["a-0", "a-1", "b-0"])
    with pytest.raises(ValueError, match=r"glimpse_examples.csv shows b-1, not in data/scenes/evaluation.parquet"):
        drawn("glimpse_examples", results)


def test_efficiency_draws_what_was_measured_as_shares_of_the_full_model(results):
    panels = drawn("efficiency", results).axes
    assert [axes.get_title() for axes in panels] == ["Prefill time (%)", "Decoding, time per token (%)", "KV cache (%)"]
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels == ["FastV", "GlimpsePrune"]
    widths = [[bar.get_width() for bar in axes.patches] for axes in panels]
    np.testing.assert_allclose(widths, [[50, 80], [90, 95], [30, 20]])


def test_significance_matrices_are_antisymmetric_and_leave_out_what_may_be_chance(results):
    figure = drawn("significance", results)
    half, tenth = (axes.images[0].get_array() for axes in figure.axes[:2])
    order = style.ordered(METHODS)
    full, oracle, random = (order.index(method) for method in ("full", "oracle", "random"))
    assert half[full, random] == half[random, full] == 0  # neighbours in the file
    assert half[full, oracle] == pytest.approx(30) and half[oracle, full] == pytest.approx(-30)
    unreached = np.ma.getmaskarray(tenth)[order.index("fastv")]
    assert unreached.all() and not np.ma.getmaskarray(half)[order.index("fastv"), full]


def test_evidence_recall_is_drawn_against_accuracy_and_merging_methods_are_hollow(results):
    figure = drawn("evidence_recall", results)
    table = pd.read_csv(results / "evidence_recall.csv").query("type == 'all' and method == 'grid'")
    for axes, column in zip(figure.axes, ("recall", "recall_last_layer"), strict=True):
        (line,) = [line for line in axes.lines if line.get_color() == style.look("grid").colour and line.get_marker()]
        expected = table.sort_values("budget")
        np.testing.assert_allclose(line.get_xydata(), 100 * expected[[column, "accuracy"]].to_numpy())
        assert line.get_markerfacecolor() == "white"
        others = [other for other in axes.lines if other is not line]
        assert all(other.get_markerfacecolor() != "white" for other in others)
        assert axes.get_title("right").endswith("points")


def test_score_correlation_shows_every_pair_once(results):
    left, right = drawn("score_correlation", results).axes[:2]
    assert [text.get_text() for text in left.texts] == [".10", ".20", ".00"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["Inside an evidence box", "FastV, first cut"]
    assert len(right.texts) == 15 and right.get_title("right").endswith("budget 50%")


def test_pareto_fronts_are_those_of_the_csv_and_points_without_latency_are_left_out(results):
    panels = drawn("pareto", results).axes[:4]
    table = pd.read_csv(results / "pareto.csv")
    shown = [(kind, cost) for kind in ("all", "several_looks") for cost in ("flops", "latency")]
    for axes, (kind, cost) in zip(panels, shown, strict=True):
        of_kind = table[table["type"] == kind]
        (front,) = [line for line in axes.lines if line.get_label() == "Pareto front"]
        expected = of_kind[of_kind[f"on_{cost}_front"]].sort_values(f"{cost}_ratio")
        np.testing.assert_allclose(front.get_xydata(), 100 * expected[[f"{cost}_ratio", "accuracy"]].to_numpy())
        grid = [line for line in axes.lines if line.get_color() == style.look("grid").colour]
        assert len(grid[0].get_xdata()) == of_kind[f"{cost}_ratio"].notna()[of_kind["method"] == "grid"].sum()


def heights(axes: Axes) -> list[float]:
    return [bar.get_height() for bars in axes.containers if isinstance(bars, BarContainer) for bar in bars]


def test_published_values_have_panels_of_their_own_that_say_so(results):
    for name, values in (
        ("quartile_kept", [44, 60.5, 61, 49]),
        ("score_kept", [56.6, 55.4, 73.8, 57.6, 55.7, 75.6, 58.5, 51.4, 79.7, 58.8, 56.8, 85.4]),
        ("ablation_sequential_prune", [0.5246, 0.4558, 0.4509, 0.4151, 0.4078]),
    ):
        panels = drawn(name, results).axes
        (published,) = [axes for axes in panels if axes.get_title().startswith("Published: ")]
        assert heights(published) == values
        assert not any(set(heights(axes)) & set(values) for axes in panels if axes is not published)


def test_lines_over_settings_are_those_of_the_csv_and_misfits_are_crosses(results):
    axes = drawn("ablation_sequential_prune", results).axes[0]
    table = pd.read_csv(results / "ablation/sequential_prune.csv").query("type == 'all' and r == 0.5 and step == 25")
    fits = table[table["feasible"]]
    shown = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == len(fits)]
    assert any(np.allclose(line, 100 * fits["accuracy"]) for line in shown)
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [round(x) for line in crosses for x in line.get_xdata()] == [3, 3]


def test_bars_of_scores_are_by_question_type(results):
    axes = drawn("score_kept", results).axes[0]
    names = [label.get_text().replace("\n", "_") for label in axes.get_xticklabels()]
    blue = [patch for patch in axes.patches if patch.get_facecolor() == to_rgba(style.SCORES["cls"].colour)]
    assert blue[names.index("counting")].get_height() == pytest.approx(70)
    assert names[0] == "all" and len(blue) == len(TYPES)


def test_looks_differ_and_unknown_methods_keep_theirs():
    looks = [style.look(method) for method in METHODS]
    assert len({(one.colour, one.marker) for one in looks}) == len(METHODS)
    assert style.look("a_new_method") == style.look("a_new_method")
    assert style.look("a_new_method")[:3] == ("a new method", "#1b7837", "h")
    assert style.ordered(["fastv", "random", "b", "full", "fastv"]) == ["full", "random", "b", "fastv"]


def test_what_cannot_be_drawn_is_one_clear_error_and_no_file(results):
    with pytest.raises(ValueError, match="unknown figure 'accuracy'; the figures are: ablation_fastv"):
        figures.draw("accuracy", results, results / "out")
    (results / "attention_dispersion.csv").unlink()
    with pytest.raises(FileNotFoundError, match="attention_dispersion needs attention_dispersion.csv"):
        figures.draw("attention_dispersion", results, results / "out")
    table = pd.read_csv(results / "accuracy.csv")
    pd.concat([table, table.assign(model="other")]).to_csv(results / "accuracy.csv", index=False)
    with pytest.raises(ValueError, match=r"one model to be drawn, found: scenes-llava, other"):
        figures.draw("accuracy_against_flops", results, results / "out")
    write_kept_tokens(results, ["a", "gone"], tokens=16)
    with pytest.raises(ValueError, match="shows gone, not in"):
        figures.draw("kept_tokens", results, results / "out")
    assert not (results / "out").exists()


def test_a_failed_drawing_leaves_the_old_figure(results):
    figures.draw("accuracy_against_flops", results, results / "out")
    before = {path: path.read_bytes() for path in (results / "out").iterdir()}
    figure = drawn("accuracy_against_flops", results)
    figure.axes[0].set_xlabel(r"$\nosuchcommand{$")
    with pytest.raises(ValueError):
        style.save(figure, results / "out", "accuracy_against_flops")
    assert {path: path.read_bytes() for path in (results / "out").iterdir()} == before


def test_drawing_leaves_matplotlibs_settings_alone(results):
    before = dict(mpl.rcParams)
    figures.draw("accuracy_against_flops", results, results / "out")
    assert dict(mpl.rcParams) == before
