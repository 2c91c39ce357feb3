"""`TrialStandardizer`: stimuli and behaviour in the scale that the models are trained in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from v1tlearn._by_name import ByName
from v1tlearn._documentation import DocumentationLinkMixin
from v1tlearn._values import as_array, as_dims, as_flag, holds_mask, labels_along
from v1tlearn._warn import warn
from v1tlearn.datasets.schema import DIMS, default_behavior_names
from v1tlearn.preprocessing.statistics import (
    TrialStatistics,
    behavior_moments,
    stimuli_moments,
    trial_statistics,
)
from v1tlearn.preprocessing.stimuli import check_stimuli, float_dtype, refuse_other_forms
from v1tlearn.trials import Trials

_ARRAY = "the array"  # stands for the mouse where plain arrays are fitted


@dataclass(frozen=True)
class StandardizeStep:
    """Subtracts and divides, or undoes it, when a view of trials reads its data.

    Attributes
    ----------
    scaling : dict of str to dict
        Per mouse `TrialStatistics.scaling`; a variable without entries stays as it is.
    inverse : bool
        Multiply and add instead.
    """

    scaling: dict[str, dict[str, Any]]
    inverse: bool = False

    def stimuli(self, mouse_id: str, images: np.ndarray) -> np.ndarray:
        """Scale images (n, channels, height, width) of one mouse."""
        scaling = self.scaling[mouse_id]
        if "image_mean" not in scaling:
            return images
        return self._apply(images, scaling["image_mean"], scaling["image_std"])

    def behaviors(self, mouse_id: str, values: np.ndarray, names: list[str] | None) -> np.ndarray:
        """Scale behaviour (n, columns) of one mouse."""
        scaling = self.scaling[mouse_id]
        if "behavior_shift" not in scaling:
            return values
        exact = values.astype(np.float64)  # as the estimators do, to the last bit
        scaled = self._apply(exact, scaling["behavior_shift"], scaling["behavior_scale"])
        return scaled.astype(float_dtype(values.dtype), copy=False)

    def _apply(self, values: np.ndarray, shift: Any, scale: Any) -> np.ndarray:
        dtype = float_dtype(values.dtype)
        shift, scale = np.asarray(shift, dtype), np.asarray(scale, dtype)
        values = values.astype(dtype, copy=False)
        return values * scale + shift if self.inverse else (values - shift) / scale


class TrialStandardizer(  # type: ignore[call-arg]  # scikit-learn, which knows the keyword, has no types
    DocumentationLinkMixin, TransformerMixin, ByName, BaseEstimator, auto_wrap_output_keys=None
):
    """Standardise stimuli and behaviour with statistics of the training trials.

    As published (Sensorium 2022; V1T 2023): images are z-scored with one mean and one standard
    deviation per mouse, ``pupil_x`` and ``pupil_y`` are z-scored, other behaviour is divided by
    its standard deviation, all of the population (ddof 0). What does not vary, but for
    rounding, is divided by its size, or by 1 where it is 0. Responses are left to the estimator.
    In a Pipeline, set ``standardize=False`` there.

    Parameters
    ----------
    stimuli : bool, default=True
        Standardise stimuli.
    behaviors : bool, default=True
        Standardise behaviour.

    Attributes
    ----------
    scaling_ : dict of str to dict
        For each mouse ``image_mean``, ``image_std``, ``behavior_shift``, ``behavior_scale``.
    behavior_names_ : dict of str to list of str or None
        For each mouse the names of its behaviour columns.
    n_features_in_ : int
        Number of columns, where fitted on 2-D behaviour.
    feature_names_in_ : array of str
        Names of the columns, where fitted on a data frame.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.preprocessing import TrialStandardizer
    >>> images = np.random.default_rng(0).integers(0, 256, (10, 1, 4, 4), dtype=np.uint8)
    >>> standardized = TrialStandardizer().fit_transform(images)
    >>> standardized.dtype, float(standardized.std().round(3))
    (dtype('float32'), 1.0)
    """

    def __init__(self, stimuli: bool = True, behaviors: bool = True) -> None:
        self.stimuli = stimuli
        self.behaviors = behaviors

    def fit(self, X: Trials | Any, y: Any = None) -> TrialStandardizer:
        """Learn the statistics of each mouse, in one pass over the trials.

        Parameters
        ----------
        X : Trials, array (n, [time,] channels, height, width) or (n, columns)
            Training trials, of images or movies; or the stimuli, or the behaviour, of one mouse.
            Behaviour without column names has 3 columns (pupil dilation, its derivative, running
            speed) or 5 (those and pupil x and y).
        y : ignored
            Accepted so that it works in a Pipeline.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If stimuli hold NaN or Inf, the shape is another one, or columns have no known names.
        TypeError
            If `stimuli` or `behaviors` is no truth value.
        """
        for attribute in ("n_features_in_", "feature_names_in_"):  # of an earlier fit
            self.__dict__.pop(attribute, None)
        for name in ("stimuli", "behaviors"):
            as_flag(getattr(self, name), name)
        refuse_other_forms(X, "fit", "TrialStandardizer")
        if isinstance(X, Trials):
            names = {mouse: X.behavior_names(mouse) for mouse in X.mice}
            scaling = {m: trial_statistics(X, m).scaling(names[m]) for m in X.mice}
        elif _is_behavior(X):
            values = self._check_behaviors(X, reset=True)
            names = {_ARRAY: self._column_names(values.shape[1])}
            moments = behavior_moments(values)
            scaling = {_ARRAY: TrialStatistics(0.0, 1.0, *moments).scaling(names[_ARRAY])}
        else:
            images = check_stimuli(X, "TrialStandardizer")
            names = {_ARRAY: None}
            scaling = {
                _ARRAY: TrialStatistics(*stimuli_moments([images], "TrialStandardizer")).scaling(
                    None
                )
            }
        for mouse, own in scaling.items() if self.behaviors else ():
            if lost := _not_finite(own, names[mouse]):
                warn(
                    f"{'' if mouse == _ARRAY else f'mouse {mouse!r}: '}the behaviour {lost} holds "
                    "NaN or infinite values, or such as are too large: all of its values become "
                    "NaN. Leave these trials out, or fill the gaps."
                )
        self.scaling_ = {mouse: self._wanted(own) for mouse, own in scaling.items()}
        self.behavior_names_ = names
        return self

    def transform(self, X: Trials | Any) -> Trials | np.ndarray:
        """Standardise; data of `Trials` when they are read.

        Parameters
        ----------
        X : Trials or array
            In the form given to `fit`.

        Returns
        -------
        Trials or array
            In the form of `X`, float32, or float64 where `X` is float64.

        Raises
        ------
        ValueError
            If a mouse was not in `fit`, or its behaviour columns have other names.
        """
        return self._apply(X, inverse=False)

    def inverse_transform(self, X: Trials | Any) -> Trials | np.ndarray:
        """Bring standardised data back to their units.

        Parameters
        ----------
        X : Trials or array
            What `transform` gave.

        Returns
        -------
        Trials or array
            In the form of `X`.
        """
        return self._apply(X, inverse=True)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the behaviour columns, which standardising does not change.

        Parameters
        ----------
        input_features : ignored
            Accepted for scikit-learn.

        Returns
        -------
        array of str

        Raises
        ------
        ValueError
            If there is no behaviour, or its columns differ between mice.
        """
        check_is_fitted(self)
        names = list(self.behavior_names_.values())
        if names[0] is None or any(other != names[0] for other in names):
            raise ValueError(
                f"there are no behaviour columns common to all mice: {self.behavior_names_}."
            )
        return np.asarray(names[0], dtype=object)

    def _apply(self, X: Trials | Any, inverse: bool) -> Trials | np.ndarray:
        check_is_fitted(self)
        step = StandardizeStep(self.scaling_, inverse)
        if isinstance(X, Trials):
            self._check_mice(X)
            return X.with_step(step)
        refuse_other_forms(X, "transform", "TrialStandardizer")
        if _ARRAY not in self.scaling_:
            raise ValueError(
                "TrialStandardizer was fitted on Trials and learned statistics per mouse; give it "
                "Trials to transform."
            )
        if _is_behavior(X):
            if not hasattr(self, "n_features_in_"):
                raise ValueError("TrialStandardizer was fitted on stimuli, but behaviour came.")
            values = self._check_behaviors(X, reset=False)
            return step.behaviors(_ARRAY, values, self.behavior_names_[_ARRAY])
        images = check_stimuli(X, "TrialStandardizer")
        if hasattr(self, "n_features_in_"):
            raise ValueError("TrialStandardizer was fitted on behaviour, but stimuli came.")
        return step.stimuli(_ARRAY, images)

    def _check_mice(self, trials: Trials) -> None:
        for mouse in trials.mice:
            if mouse not in self.scaling_:
                known = [m for m in self.scaling_ if m != _ARRAY]
                raise ValueError(
                    f"unknown mouse {mouse!r}: this TrialStandardizer was fitted on "
                    + (f"the mice {known}" if known else "an array")
                    + ". A new animal needs statistics of its own: TrialStandardizer()."
                    "fit_transform(trials), and a model a readout, which transfer trains: "
                    "pipeline[-1].transfer(...) of these trials."
                )
            names = trials.behavior_names(mouse)
            if names != self.behavior_names_[mouse]:
                raise ValueError(
                    f"mouse {mouse!r}: the behaviour columns are {names}, in fit they were "
                    f"{self.behavior_names_[mouse]}."
                )

    def _check_behaviors(self, X: Any, reset: bool) -> np.ndarray:
        X = as_dims(X, DIMS["behaviors"], "TrialStandardizer: behaviour")
        if holds_mask(X):
            X = as_array(X, "TrialStandardizer: behaviour")
        names = labels_along(X, "behavior")
        if isinstance(X, xr.DataArray) and names is not None:
            X = pd.DataFrame(X.values, columns=names)
        return validate_data(
            self, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan"
        )

    def _column_names(self, n_columns: int) -> list[str]:
        if hasattr(self, "feature_names_in_"):
            return [str(name) for name in self.feature_names_in_]
        if n_columns not in (3, 5):
            raise ValueError(
                f"behaviour has {n_columns} columns without names, which are known for 3 and 5 "
                "columns only: give a data frame with named columns, or Trials."
            )
        return default_behavior_names(n_columns)

    def _wanted(self, scaling: dict[str, Any]) -> dict[str, Any]:
        used = {"image": self.stimuli, "behavior": self.behaviors}
        return {name: value for name, value in scaling.items() if used[name.split("_")[0]]}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _is_behavior(X: Any) -> bool:
    ndim = X.ndim if isinstance(X, xr.DataArray) else np.asarray(X).ndim
    return ndim <= 2  # validate_data tells what is wrong with less than 2


def _not_finite(scaling: dict[str, Any], names: list[str] | None) -> list[str]:
    """Columns of behaviour whose statistics are no numbers."""
    scale = scaling.get("behavior_scale")
    if scale is None or names is None:
        return []
    known = np.isfinite(scale) & np.isfinite(scaling["behavior_shift"])
    return [name for name, finite in zip(names, known, strict=True) if not finite]
