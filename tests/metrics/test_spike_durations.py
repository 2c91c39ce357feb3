"""SD-KL, against the numbers of the published code and a density written out."""

import numpy as np
import pytest

from tests.nn.movies.published_vist import load
from v1tlearn.metrics import sd_kl, spike_durations

FILES = ("spike_duration_divergence", "spike_duration_sine")
VARIANTS = {"published": "published", "algorithm": "supplement", "stated": "stated"}
each_file = pytest.mark.parametrize("name", FILES)


def options_of(key):
    """What a key of a file says of the score."""
    variant, *parts = key.split("/")
    found = {"variant": VARIANTS[variant], "multioutput": "raw_values"}
    for part in parts:
        if part.startswith("alpha"):
            alpha, _, ceiling = part.removeprefix("alpha").partition("_ceiling")
            found["bandwidth"] = float(alpha)
            if ceiling:
                found["ceiling"] = float(ceiling)
        elif part in ("pred_true", "true_pred"):
            found["direction"] = part
        elif part == "tvd":
            found["distance"] = part
        elif part == "clamped":
            found["floor"] = 1e-6
    return found


@each_file
def test_all_published_and_stated_scores(name):
    arrays = load(name)
    target, prediction = arrays["target"].T, arrays["prediction"].T
    keys = [k for k in arrays if k.endswith("/score") and "two_sequences" not in k]
    assert len(keys) > 10
    for key in keys:
        found = sd_kl(target, prediction, **options_of(key))
        np.testing.assert_allclose(found, arrays[key], rtol=1e-10, atol=1e-12, err_msg=key)


@each_file
def test_durations_of_peaks_are_the_published_ones(name):
    arrays = load(name)
    for kind in ("prediction", "target"):
        found = [spike_durations(trace) for trace in arrays[kind]]
        assert [len(d) for d in found] == arrays[f"durations/{kind}/count"].tolist()
        np.testing.assert_allclose(np.concatenate(found), arrays[f"durations/{kind}/values"])


def test_sequences_are_joined():
    arrays = load(FILES[0])
    halves = [np.split(arrays[k].T, 2) for k in ("target", "prediction")]
    found = sd_kl(*halves, variant="published", bandwidth=0.5, multioutput="raw_values")
    np.testing.assert_allclose(found, arrays["published/two_sequences/score"], rtol=1e-10)


def test_the_mean_over_neurons_is_the_default():
    arrays = load(FILES[1])
    given = arrays["target"].T, arrays["prediction"].T
    found = sd_kl(*given, variant="published")
    assert found == pytest.approx(float(arrays["published/kl/alpha0.3/mean"]))
    assert found == pytest.approx(
        sd_kl(*given, variant="published", multioutput="raw_values").mean()
    )


def triangles(widths, height=0.8):
    """Trace of peaks that are so many frames wide at their base, one after the other."""
    bumps = [np.interp(np.arange(w + 1), [0, w / 2, w], [0, height, 0]) for w in widths]
    return np.concatenate([bump[:-1] for bump in bumps] + [[0.0]])


def test_scores_are_the_divergence_of_densities_written_out():
    first, second = np.array([4, 6, 8, 8, 10]), np.array([6, 8, 12, 12])
    pred, true = triangles(first), triangles(second)
    pred = np.pad(pred, (0, len(true) + len(pred)))[: 2 * 60]
    true = np.pad(true, (0, 200))[: len(pred)]
    assert spike_durations(pred).tolist() == first.tolist()
    assert spike_durations(true).tolist() == second.tolist()
    union, bandwidth = np.concatenate((first, second)), 0.4
    reach = 3 * bandwidth * len(union) ** (-1 / 5) * union.std(ddof=1)
    grid = np.linspace(union.min() - reach, union.max() + reach, 50)

    def density(values):
        width = bandwidth * values.std(ddof=1)
        p = np.exp(-(((grid[:, None] - values) / width) ** 2) / 2).sum(1)
        return p / p.sum()

    p, q = density(first), density(second)
    options = {"bandwidth": bandwidth, "grid_points": 50}
    found = sd_kl(true[:, None], pred[:, None], **options)
    assert found == pytest.approx((p * np.log(p / q)).sum())
    back = sd_kl(true[:, None], pred[:, None], direction="true_pred", **options)
    assert back == pytest.approx((q * np.log(q / p)).sum())


def test_equal_durations_are_perfect_and_what_cannot_be_compared_the_worst():
    regular = np.append(np.tile([0, 0.5, 1, 0.5], 12), 0)[:, None]
    other = triangles([4, 6, 8])[:, None]
    other = np.pad(other, ((0, 49 - len(other)), (0, 0)))
    silent, one = np.zeros((49, 1)), np.zeros((49, 1))
    one[10] = 1
    assert sd_kl(regular, regular) == 0
    assert sd_kl(regular, regular, variant="published") == 1000
    for pred in (silent, one):
        assert sd_kl(other, pred) == 1000
    assert sd_kl(regular, other) == 1000


def test_what_comes_in_stays_as_it_is():
    arrays = load(FILES[0])
    target, prediction = arrays["target"].T.copy(), arrays["prediction"].T.copy()
    sd_kl(target, prediction, variant="published")
    assert np.array_equal(target, arrays["target"].T)
    assert np.array_equal(prediction, arrays["prediction"].T)


def test_missing_frames_and_unknown_options_are_refused():
    y = np.random.default_rng(0).random((20, 2))
    holes = y.copy()
    holes[3, 1] = np.nan
    with pytest.raises(ValueError, match="y_true is not finite at 1 places"):
        sd_kl(holes, y)
    for options in (
        {"variant": "paper"}, {"direction": "both"}, {"distance": "js"}, {"multioutput": "mice"},
        {"bandwidth": 0}, {"ceiling": -1}, {"grid_points": 1}, {"floor": -1},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(options))):
            sd_kl(y, y, **options)


def test_durations_of_what_is_no_whole_trace_are_refused():
    trace = triangles([4, 6])
    gap = trace.copy()
    gap[5] = np.nan
    with pytest.raises(ValueError, match="trace is not finite at 1 places"):
        spike_durations(gap)
    with pytest.raises(ValueError, match=r"trace has the shape \(11, 1\)"):
        spike_durations(trace[:, None])
    with pytest.raises(ValueError, match="ceiling=0: expected a positive number"):
        spike_durations(trace, ceiling=0)
