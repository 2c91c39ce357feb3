"""On a GPU maps are those of a CPU."""

import copy

import numpy as np
import pytest

from v1tlearn.inspection import attention_rollout, behavior_activations, readout_shifts


@pytest.mark.gpu
def test_cuda_tells_the_same(fit, trials):
    on_cpu, test = fit(), trials.sel(tier="test")
    on_gpu = copy.deepcopy(on_cpu).set_params(device="cuda")
    for tell in (attention_rollout, behavior_activations, readout_shifts):
        found = tell(on_gpu, test)
        for mouse, expected in tell(on_cpu, test).items():
            np.testing.assert_allclose(found[mouse], expected, atol=1e-3, err_msg=tell.__name__)
