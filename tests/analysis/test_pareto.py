import numpy as np
import pytest

from analysis.pareto import on_front


def test_front_by_hand() -> None:
    #        beaten by the next two, cheapest, best, equal to the best, dearer and worse, same cost but worse
    cost = [2.0, 1.0, 2.0, 2.0, 3.0, 1.0]
    value = [0.5, 0.6, 0.9, 0.9, 0.8, 0.5]
    assert on_front(cost, value).tolist() == [False, True, True, True, False, False]
    assert on_front([], []).tolist() == []


def test_every_point_off_the_front_is_beaten_by_one_on_it_and_none_on_it_is_beaten() -> None:
    cost, value = np.random.default_rng(0).random((2, 200)).round(1)
    front = on_front(cost, value)
    beats = (cost <= cost[:, None]) & (value >= value[:, None]) & ((cost < cost[:, None]) | (value > value[:, None]))
    assert beats[~front][:, front].any(axis=1).all()
    assert not beats[front].any()


@pytest.mark.parametrize(("cost", "value"), [([1.0], [1.0, 2.0]), ([np.nan], [1.0]), ([1.0], [np.nan])])
def test_what_is_no_point_is_refused(cost: list[float], value: list[float]) -> None:
    with pytest.raises(ValueError, match="all of them numbers"):
        on_front(cost, value)
