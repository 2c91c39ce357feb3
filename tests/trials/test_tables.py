"""Tables in files: what is read of them is what was written."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV, GroupKFold

import v1tlearn as v1
from tests.exact_csv import read_csv
from v1tlearn.trials import Responses, tables


@pytest.fixture(params=["a.csv", "a.parquet"])
def path(tmp_path, request):
    return tmp_path / request.param


def read(path):
    return read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


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


def test_long_ids_that_one_mouse_lacks_keep_their_digits(trials, path):
    ids = 864_691_135_000_000_000 + np.array([1, 3, 7])
    recordings = {mouse: trials.recordings[mouse].to_dataset() for mouse in trials.mice}
    recordings["A"] = recordings["A"].assign_coords(root_id=("neuron", ids))
    responses = v1.Trials(recordings).responses
    expected = np.tile(ids, len(responses.rows("A")[0]))
    v1.save_table(responses, path)
    text = {"dtype": {"root_id": "Int64"}}
    found = pd.read_csv(path, **text) if path.suffix == ".csv" else pd.read_parquet(path)
    for table in (found, responses.to_dataframe()):
        assert table.loc[table["mouse"] == "A", "root_id"].tolist() == expected.tolist()
        assert table.loc[table["mouse"] == "B", "root_id"].isna().all()
    by_unit = responses.mean("trial")["root_id"].sel(mouse="A")
    assert by_unit.values.tolist() == ids.tolist()


@pytest.mark.parametrize("other", [np.arange(4) + 0.5, 2**63 + np.arange(4).astype("u8")])
def test_long_ids_beside_numbers_of_another_kind_keep_their_digits(trials, other):
    ids = 864_691_135_000_000_000 + np.array([1, 3, 7])
    recordings = {mouse: trials.recordings[mouse].to_dataset() for mouse in trials.mice}
    told = {"A": ids, "B": other}
    for mouse, own in told.items():
        recordings[mouse] = recordings[mouse].assign_coords(root_id=("neuron", own))
    responses = v1.Trials(recordings).responses
    table, by_unit = responses.to_dataframe(), responses.mean("trial")["root_id"]
    for mouse, own in told.items():
        assert table.loc[table["mouse"] == mouse, "root_id"].tolist()[: len(own)] == own.tolist()
        assert by_unit.sel(mouse=mouse).values.tolist() == own.tolist()


def test_an_index_with_a_name_is_written(tmp_path):
    v1.save_table(pd.DataFrame({"a": [5, 6]}).rename_axis("trial"), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "trial,a\n0,5\n1,6\n"


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


def test_texts_that_end_lines_are_quoted_in_rows_labels_and_names(tmp_path):
    table = pd.DataFrame({"a\rb": ["x\r", "\r\n", "y"]}, index=pd.Index(["1\r2", "\n", "3"]))
    v1.save_table(table.rename_axis("mouse\r\n"), tmp_path / "a.csv")
    told = (tmp_path / "a.csv").read_bytes()
    assert told == b'"mouse\r\n","a\rb"\n"1\r2","x\r"\n"\n","\r\n"\n3,y\n'
    found = pd.read_csv(tmp_path / "a.csv")
    assert found.columns.tolist() == ["mouse\r\n", "a\rb"]
    assert found.values.tolist() == [["1\r2", "x\r"], ["\n", "\r\n"], ["3", "y"]]


AWKWARD = ["007", "1e5", "inf", 'a, "b"\r\nc', "µ ✓", "TRUE", "0x1A", "a\rb", "d\r\ne", "c\nd"]


def read_exactly(path):
    """As the documentation of `save_table` says."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return read_csv(path, dtype={"mouse": str}, keep_default_na=False, na_values=[""])


@pytest.fixture(scope="module")
def awkward():
    made = v1.make_v1_recordings(
        n_mice=len(AWKWARD), n_neurons=2, n_trials=2, n_test_images=2, n_repeats=2,
        image_shape=(8, 12), random_state=0,
    )  # fmt: skip
    named = zip(AWKWARD, made.children.values(), strict=True)
    return v1.Trials({name: node.to_dataset() for name, node in named})


def test_awkward_names_and_every_digit_come_back(awkward, path):
    responses = awkward.responses
    v1.save_table(responses, path)
    found = read_exactly(path)
    assert found["mouse"].drop_duplicates().tolist() == AWKWARD
    for mouse in AWKWARD:
        own = found.loc[found["mouse"] == mouse, "responses"].to_numpy(np.float32)
        np.testing.assert_array_equal(own, responses[mouse].values.ravel())


def test_scores_of_awkward_mice_and_missing_ones_come_back(path):
    value = [np.nan, 1 / 3, 1e-300, -0.0, np.inf, 0.1 + 0.2, 12345678901234567.0, 1.0, 2.0, 3.0]
    table = pd.DataFrame({"model": "CNN", "mouse": AWKWARD, "metric": "feve", "value": value})
    v1.save_table(table, path)
    found = read_exactly(path)
    assert found["mouse"].tolist() == AWKWARD
    np.testing.assert_array_equal(found["value"].astype(float), value)
    assert found.columns.tolist() == table.columns.tolist()


def test_results_of_searches_come_back(path):
    made = v1.make_v1_recordings(1, 4, 60, 2, 2, image_shape=(8, 12), random_state=0)
    train = v1.Trials(made).sel(tier="train")
    model = v1.LNRegressor(
        n_layers=1, hidden_channels=2, input_kernel=3, max_epochs=1, device="cpu", random_state=0
    )
    grid = {"lr": [0.1, 0.001], "readout": ["gaussian", "factorized"]}
    search = GridSearchCV(model, grid, cv=GroupKFold(2), refit=False)
    search.fit(train, groups=train.image_ids)
    table = pd.DataFrame(search.cv_results_).drop(columns="params")
    v1.save_table(table, path)
    found = read_exactly(path)
    assert found.columns.tolist() == table.columns.tolist()
    for name in ("mean_test_score", "mean_fit_time", "param_lr", "rank_test_score"):
        np.testing.assert_array_equal(found[name].astype(float), table[name].astype(float))
    assert found["param_readout"].tolist() == table["param_readout"].tolist()


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


@pytest.mark.parametrize("values", [["x", 1], [1, "x"], [1, object()], [1j, 2j]])
def test_a_column_that_parquet_does_not_hold_is_named(tmp_path, values):
    said = "column unit .*: a column of Parquet holds values of one type"
    with pytest.raises(ValueError, match=said):
        v1.save_table(pd.DataFrame({"a": [1, 2], "unit": values}), tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


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
