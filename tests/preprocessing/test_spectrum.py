"""Spatial frequencies of images: what filters keep, what they take, what scrambling leaves."""

import numpy as np
import pytest

from v1tlearn.preprocessing import high_pass, low_pass, scramble_phases, spatial_frequencies

SIZES = [(8, 12), (9, 13), (12, 9), (1, 6)]


def random_images(size, n=3, channels=2):
    return 100 + 20 * np.random.default_rng(0).normal(size=(n, channels, *size))


def amplitudes(images):
    return np.abs(np.fft.rfft2(images))


def test_frequencies_are_cycles_of_the_height_in_all_directions():
    rows, columns = np.mgrid[:24, :48]
    frequencies = spatial_frequencies((24, 48))
    for along, pixels_per_cycle in ((rows, 8), (columns, 8)):
        grating = np.cos(2 * np.pi * along / pixels_per_cycle)
        (found,) = np.unique(frequencies[amplitudes(grating) > 1])
        assert found == pytest.approx(24 / pixels_per_cycle)


@pytest.mark.parametrize("size", SIZES)
def test_an_ideal_low_pass_keeps_what_is_below_and_nothing_above(size):
    images, frequencies = random_images(size), spatial_frequencies(size)
    for cutoff in (1, 2.5, 4):
        before, after = amplitudes(images), amplitudes(low_pass(images, cutoff))
        below = frequencies <= cutoff
        np.testing.assert_allclose(after[..., below], before[..., below], rtol=1e-9)
        assert after[..., ~below].max(initial=0) < 1e-9


@pytest.mark.parametrize("kind", ["ideal", "gaussian"])
@pytest.mark.parametrize("size", SIZES)
def test_low_and_high_pass_add_up_and_keep_the_mean(kind, size):
    images = random_images(size)
    low, high = (f(images, 2, kind=kind) for f in (low_pass, high_pass))
    means = images.mean((2, 3), keepdims=True)
    np.testing.assert_allclose(low + high, images + means, rtol=1e-9)
    for filtered in (low, high):
        np.testing.assert_allclose(filtered.mean((2, 3), keepdims=True), means, rtol=1e-9)


def test_a_gaussian_low_pass_halves_amplitudes_at_the_cutoff():
    grating = np.cos(2 * np.pi * 4 * np.arange(32) / 32) + np.zeros((1, 1, 32, 1))
    np.testing.assert_allclose(low_pass(grating, 4, kind="gaussian"), grating / 2, atol=1e-9)
    np.testing.assert_allclose(low_pass(grating, 2, kind="gaussian"), grating / 16, atol=1e-9)


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("size", SIZES)
def test_scrambling_keeps_the_power_spectrum_and_moves_phases(size, share):
    images = random_images(size)
    scrambled = scramble_phases(images, share, random_state=0)
    np.testing.assert_allclose(amplitudes(scrambled), amplitudes(images), rtol=1e-7, atol=1e-9)
    assert scrambled.dtype == np.float64
    turned = np.angle(np.fft.rfft2(scrambled) / np.fft.rfft2(images))
    assert np.abs(turned).max() <= share * np.pi + 1e-9
    assert np.abs(turned).max() > 0.3 * share
    np.testing.assert_allclose(turned[:, 0], turned[:, 1], atol=1e-6)  # channels turn together


def test_scrambled_images_resemble_theirs_the_less_the_more_phases_turn():
    images = random_images((32, 32), n=8, channels=1)
    flat = images.reshape(8, -1)
    similar = []
    for share in (0, 0.25, 0.5, 1):
        scrambled = scramble_phases(images, share, random_state=1).reshape(8, -1)
        similar.append(
            np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(flat, scrambled, strict=True)])
        )
    assert similar[0] == pytest.approx(1)
    assert np.all(np.diff(similar) < 0)
    assert abs(similar[-1]) < 0.1


def test_scrambling_depends_on_the_seed_and_on_the_place_alone():
    images = random_images((8, 8), n=4, channels=1)
    first = scramble_phases(images, random_state=3)
    np.testing.assert_array_equal(first, scramble_phases(images, random_state=3))
    np.testing.assert_allclose(first[:2], scramble_phases(images[:2], random_state=3))
    assert not np.allclose(first, scramble_phases(images, random_state=4))
    many = np.broadcast_to(images[:1], (300, 1, 8, 8))  # more than pass at once
    np.testing.assert_allclose(scramble_phases(many, random_state=3)[0], first[0])


@pytest.mark.parametrize("function", [low_pass, high_pass, scramble_phases])
def test_types_and_flat_images(function):
    argument = {} if function is scramble_phases else {"cutoff": 3}
    whole = np.random.default_rng(0).integers(0, 255, (2, 1, 8, 12)).astype(np.uint8)
    before = whole.copy()
    assert function(whole, **argument).dtype == np.float32
    assert np.array_equal(whole, before)
    flat = np.full((2, 1, 8, 12), 7.0)
    np.testing.assert_allclose(function(flat, **argument), flat)


@pytest.mark.parametrize(
    ("function", "arguments", "match"),
    [
        (low_pass, {"cutoff": 0}, "cutoff=0: expected a number above 0"),
        (high_pass, {"cutoff": "3"}, "cutoff='3'"),
        (low_pass, {"cutoff": np.nan}, "cutoff=nan"),
        (low_pass, {"cutoff": 3, "kind": "box"}, r"expected one of \('ideal', 'gaussian'\)"),
        (scramble_phases, {"share": 1.5}, "expected a number from 0 to 1"),
    ],
)
def test_wrong_options_are_named(function, arguments, match):
    with pytest.raises(ValueError, match=match):
        function(np.zeros((1, 1, 8, 8)), **arguments)


@pytest.mark.parametrize("function", [low_pass, high_pass, scramble_phases])
def test_what_are_no_images_is_refused(function):
    argument = {} if function is scramble_phases else {"cutoff": 3}
    with pytest.raises(ValueError, match="A gray image needs a channel axis"):
        function(np.zeros((2, 8, 8)), **argument)
    images = np.zeros((3, 1, 8, 8))
    images[1, 0, 2, 2] = np.nan
    with pytest.raises(ValueError, match="image 1 has values that are not finite"):
        function(images, **argument)
