"""Receptive fields put into recordings."""

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1


@pytest.fixture(scope="module")
def recordings():
    return v1.make_movie_recordings(1, 4, 4, 1, 2, n_frames=20, random_state=0)


def by_area(one, grid):
    """Means over areas, from a map whose cells are cut so fine that both grids fit."""
    fine = np.kron(one, np.ones((grid[0], grid[1])))
    rows, columns = one.shape
    return fine.reshape(grid[0], rows, grid[1], columns).mean((1, 3))


def test_maps_are_averaged_over_areas_where_grids_do_not_divide(recordings):
    maps = np.random.default_rng(0).random((4, 9, 7))
    found = v1.with_receptive_fields(recordings, {"A": maps}, (4, 3))["A"]["receptive_field"]
    for neuron in range(4):
        np.testing.assert_allclose(found[neuron], by_area(maps[neuron], (4, 3)), rtol=1e-6)


def test_maps_follow_the_unit_ids_that_they_bear(recordings):
    maps = xr.DataArray(
        np.arange(4.0)[:, None, None] * np.ones((4, 2, 3)),
        dims=("neuron", "height", "width"),
        coords={"neuron": [3, 1, 4, 2]},
    )
    out = v1.with_receptive_fields(recordings, {"A": maps})
    v1.validate_recordings(out)
    assert out["A"]["receptive_field"].values[:, 0, 0].tolist() == [1, 3, 0, 2]
    assert recordings["A"]["receptive_field"].shape == (4, 18, 32)  # as it was


def test_what_is_known_of_all_recordings_stays(recordings):
    tree = recordings.copy()
    tree.attrs["title"] = "movies"
    assert v1.with_receptive_fields(tree, {"A": np.ones((4, 2, 2))}).attrs == {"title": "movies"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"B": np.ones((4, 2, 2))}, r"of the mice \['B'\], recordings of \['A'\]"),
        ({"A": np.ones((3, 2, 2))}, r"expected numbers \(4, rows, columns\)"),
        ({"A": np.full((4, 2, 2), np.nan)}, "neuron 0 .* NaN or Inf"),
        (
            {"A": xr.DataArray(np.ones((4, 2, 2)), dims=("neuron", "lag", "width"))},
            "take the receptive_field of space_time_components",
        ),
        (
            {
                "A": xr.DataArray(
                    np.ones((4, 2, 2)),
                    dims=("neuron", "row", "column"),
                    coords={"neuron": [1, 2, 3, 5]},
                )
            },
            "there is none of",
        ),
    ],
)
def test_fields_of_others_are_refused(recordings, fields, message):
    with pytest.raises(ValueError, match=message):
        v1.with_receptive_fields(recordings, fields)


def test_recordings_with_fields_of_another_form_are_not_valid(recordings):
    dataset = recordings["A"].to_dataset()
    turned = dataset.assign(receptive_field=dataset["receptive_field"].transpose("row", ...))
    with pytest.raises(ValueError, match="receptive_field: dims are"):
        v1.validate_recordings({"A": turned})
