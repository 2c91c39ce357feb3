"""On a GPU all is told as on a CPU."""

import copy

import numpy as np
import pytest

from v1tlearn import inspection


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("neuron_importance", {}),
        ("neuron_importance", {"method": "ablation"}),
        ("attention_masking", {"fractions": [0.3, 1.0], "rankings": ["attention", "random"]}),
        ("attention_masking", {"rankings": ["reliability"]}),
        ("functional_interactions", {}),
        ("neurons_per_dimension", {}),
        ("neurons_for_performance", {"rankings": ["importance", "greedy", "random"]}),
    ],
)
def test_cuda_tells_the_same(aligners, seen, name, options):
    on_cpu = getattr(inspection, name)(aligners["attention"], seen, **options)
    est = copy.deepcopy(aligners["attention"]).set_params(device="cuda")
    on_gpu = getattr(inspection, name)(est, seen, **options)
    for mouse, expected in on_cpu.items():
        for variable, values in expected.items():
            if values.dtype.kind != "f" or "place" in variable:
                continue
            np.testing.assert_allclose(
                on_gpu[mouse][variable], values, rtol=1e-3, atol=1e-3, err_msg=variable
            )
