"""On a GPU all is told as on a CPU."""

import copy

import numpy as np
import pytest

import v1tlearn as v1
from v1tlearn import inspection


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("manipulation_curve", {"values": [1, 2, 4], "n_bootstrap": 20, "n_permutations": 20}),
        ("class_confusions", {}),
        ("class_galleries", {}),
        ("representational_similarity", {}),
        ("alignment_map", {}),
        ("occlusion_saliency", {"patch_size": 4}),
        ("gradient_saliency", {"method": "gradient"}),
        ("gradient_saliency", {"n_samples": 3}),
    ],
)
def test_cuda_tells_the_same(name, options):
    trials = v1.Trials(
        v1.make_coarse_recordings(
            n_mice=2, n_neurons=12, n_trials=60, n_test_images=12, image_shape=(16, 24),
            n_categories=3, random_state=0,
        )
    )  # fmt: skip
    est = v1.DINAAligner(
        map_size=(4, 6), map_channels=2, max_epochs=2, device="cpu", random_state=0
    )  # fmt: skip
    est.fit(trials.sel(tier="train"), validation=trials.sel(tier="validation"))
    test = trials.sel(tier="test")
    tell = getattr(inspection, name)
    on_cpu = tell(est, test, **options)
    on_gpu = tell(copy.deepcopy(est).set_params(device="cuda"), test, **options)
    for variable, values in on_cpu.items():
        np.testing.assert_allclose(
            on_gpu[variable], values, rtol=1e-3, atol=1e-3, err_msg=str(variable)
        )
