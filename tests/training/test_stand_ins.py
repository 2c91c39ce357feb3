"""Forward passes that stand in for others come and go, and leave modules as they were."""

import pytest
import torch

from v1tlearn.training.stand_ins import StandIns


def test_modules_are_as_they_were_outside():
    first, second, third = (torch.nn.Identity() for _ in range(3))
    own = second.forward = lambda x: x + 1
    stand_ins = StandIns({first: lambda x: 2 * x, second: lambda x: 3 * x})
    for _ in range(2):
        with stand_ins:
            assert [m(5) for m in (first, second, third)] == [10, 15, 5]
        assert [m(5) for m in (first, second, third)] == [5, 6, 5]
        assert "forward" not in vars(first)
        assert second.forward is own
    with pytest.raises(ZeroDivisionError), stand_ins:
        raise ZeroDivisionError
    assert first(5) == 5
