"""Numbers of any type become plain Python ones, and nothing else passes for a number."""

import numpy as np
import pytest
import torch

from unlearnable.engine.numbers import integer, number


@pytest.mark.parametrize("make", [int, np.int64, np.uint8, np.array, torch.tensor])
def test_integers_of_any_type(make):
    found = integer("steps", make(7), least=7)
    assert found == 7 and type(found) is int


@pytest.mark.parametrize("wrong", [True, np.True_, torch.tensor(True), 1.0, 1.5, None, "3", -1])
def test_what_is_no_integer(wrong):
    with pytest.raises(ValueError, match="expected steps to be an integer >= 0, got"):
        integer("steps", wrong, least=0)


@pytest.mark.parametrize("make", [float, np.float64, np.float16, np.array, torch.tensor])
def test_numbers_of_any_type(make):
    found = number("epsilon", make(0.5))
    assert found == 0.5 and type(found) is float
    assert type(number("epsilon", 1)) is float


@pytest.mark.parametrize("wrong", [False, np.False_, None, "0.5", [], np.ones(2), float("nan")])
def test_what_is_no_number(wrong):
    with pytest.raises(ValueError, match="expected epsilon to be a finite number, got"):
        number("epsilon", wrong)
