"""Tables in files: what is read of them is what was written."""

import numpy as np
import pandas as pd
import pytest

import v1tlearn as v1
from v1tlearn.trials import Responses, tables


@pytest.fixture(params=["a.csv", "a.parquet"])
def path(tmp_path, request):
    return tmp_path / request.param


def read(path):
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


@pytest.fixture(scope="module")
def trials():
    made = v1.make_v1_recordings(
        n_mice=2, n_neurons=(3, 4), n_trials=12, n_test_images=2, n_repeats=3,
        image_shape=(8, 12), random_state=0,
    )  # fmt: skip
    return v1.Trials(made)


def test_responses_come_back_as_their_table(trials, path):
    responses = trials[::-1].responses
    v1.save_table(responses, path)
    found = read(path)
    expected = responses.to_dataframe()
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert len(found) == sum(n * len(trials.rows(m)[0]) for m, n in trials.n_neurons.items())


def test_parquet_keeps_types(trials, tmp_path):
    predictions = trials.sel(tier="test").responses
    predictions.name = "prediction"
    v1.save_table(predictions, tmp_path / "a.parquet")
    found = pd.read_parquet(tmp_path / "a.parquet")
    assert found["prediction"].dtype == np.float32
    assert found["trial"].dtype == found["image_id"].dtype == np.int64


def test_numbers_and_text_of_several_mice_are_text(path):
    made = v1.make_v1_recordings(2, 2, 4, 2, 2, image_shape=(8, 12), random_state=0)
    other = made["B"].to_dataset().assign_coords(neuron=["x", "y"])
    trials = v1.Trials({"A": made["A"].to_dataset(), "B": other.drop_vars("area", errors="ignore")})
    v1.save_table(trials.responses, path)
    assert set(read(path)["neuron"]) == {*map(str, made["A"]["neuron"].values), "x", "y"}


def test_scores_come_back(trials, path):
    model = v1.LNRegressor(
        n_layers=1, hidden_channels=2, input_kernel=3, max_epochs=1, device="cpu", random_state=0
    ).fit(trials.sel(tier="train"))
    table = v1.score_table({"LN": model}, trials.sel(tier="test"))
    v1.save_table(table, path)
    pd.testing.assert_frame_equal(read(path), table, check_dtype=False)
    wide = table.pivot_table("value", "model", "metric")
    v1.save_table(wide, path)
    found = read(path)
    found = found.set_index("model") if path.suffix == ".csv" else found
    np.testing.assert_allclose(found.loc[wide.index, wide.columns], wide)


def test_movies_have_a_row_per_frame(path):
    made = v1.make_movie_recordings(1, 2, 3, 1, 2, n_frames=(6, 9), image_shape=(8, 12))
    responses = v1.Trials(made).responses
    v1.save_table(responses, path)
    found = read(path)
    assert len(found) == 2 * responses.n_frames.sum()
    np.testing.assert_allclose(found["responses"], responses.to_dataframe()["responses"], rtol=1e-6)


def test_an_earlier_file_stays_until_a_new_one_is_whole(trials, path):
    v1.save_table(pd.DataFrame({"a": [1]}), path)
    mixed = pd.DataFrame({"a": [1, object()]})
    if path.suffix == ".parquet":
        with pytest.raises(ValueError, match="object"):
            v1.save_table(mixed, path)
        assert read(path)["a"].tolist() == [1]
    v1.save_table(pd.DataFrame({"a": [2]}), path)
    assert read(path)["a"].tolist() == [2]
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("table", "name", "error", "said"),
    [
        ([1, 2], "a.csv", TypeError, "table is a list: expected a DataFrame"),
        (pd.DataFrame({"a": [1]}), "a.xlsx", ValueError, "ends in '.xlsx': expected '.csv'"),
        (pd.DataFrame({"a": [1]}), "a", ValueError, "ends in '': expected '.csv'"),
        (pd.DataFrame({"a": []}), "a.csv", ValueError, "the table has no rows"),
    ],
)
def test_what_is_no_table_or_no_such_file_is_refused(tmp_path, table, name, error, said):
    with pytest.raises(error, match=said):
        v1.save_table(table, tmp_path / name)
    with pytest.raises(TypeError, match=r"The call is save_table\(table, path\)"):
        v1.save_table(pd.DataFrame({"a": [1]}), 3)


def test_a_whole_table_is_not_needed_in_memory(tmp_path):
    values = {"A": np.zeros((4000, 300), "f4")}
    images = np.zeros((4000, 1, 1, 1), "u1")
    like = v1.Trials.from_arrays({"A": images}, None, values, image_ids={"A": np.arange(4000)})
    responses = Responses.from_arrays(values, like)
    parts = list(tables._parts(responses))
    assert max(map(len, parts)) <= 2**20 < sum(map(len, parts)) == 1_200_000
    pd.testing.assert_frame_equal(pd.concat(parts), responses.to_dataframe(), check_dtype=False)
