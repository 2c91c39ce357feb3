"""Images, or their classes, from the space of a fitted alignment by linear models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from v1tlearn._by_name import ByName
from v1tlearn._documentation import DocumentationLinkMixin
from v1tlearn._values import as_array, as_dims, as_ids, plain
from v1tlearn.datasets.schema import are_known
from v1tlearn.decoding._calls import (
    ALPHA_CONSTRAINTS,
    FOLDS_CONSTRAINTS,
    IMAGE_DIMS,
    check_alpha,
    check_images,
    check_pixels,
    images_of,
    labelled_images,
    mean_correlation,
    warn_of_seen,
)
from v1tlearn.decoding._regression import choose_alpha, coordinates, fit_map
from v1tlearn.estimators import DINAAligner
from v1tlearn.estimators._calls import explained
from v1tlearn.estimators._leaks import Seen
from v1tlearn.estimators._reading import warn_about_tiers
from v1tlearn.estimators._space_inputs import are_maps
from v1tlearn.trials import Trials
from v1tlearn.trials._arithmetic import labels_of

_ALPHAS = np.logspace(-3, 3, 7)  # "auto" of classes, for features of variance 1
_ROUNDING = 1e-6


@dataclass(eq=False, repr=False)
class LinearProbe(DocumentationLinkMixin, ByName, BaseEstimator):
    """Read images, or their classes, from the space of a fitted alignment by a linear model.

    What a linear model can read is there in plain sight: the probe tells what maps hold, as far as
    it was fitted to other trials than it is scored on.

    Parameters
    ----------
    target : {"pixels", "classes"}, default="pixels"
        Images, by ridge regression, or classes, by multinomial logistic regression.
    aligner : DINAAligner, optional
        Fitted, and left as it is; `clone` keeps it. Without one, features are given to `fit`.
    maps : {"responses", "images"}, default="responses"
        Whose maps are made of `Trials`: those of the responses, of all mice together, as they are
        in one space, or those of the images, which show what could at best be read.
    alpha : "auto", float or sequence of float, default="auto"
        Penalty on the squared coefficients. Of several the one is taken that does best on images
        that were left out: by squared error for pixels, by the share of right classes for
        classes. "auto" are 17 from 1e-4 to 1e4 times the mean square of the features along
        their principal axes for pixels; 7 from 1e-3 to 1e3 for classes.
    n_folds : int, default=5
        Parts in which images are left out to choose `alpha`; all repeats of an image are in one.
    max_iter : int, default=1000
        Most iterations of the logistic regression.

    Attributes
    ----------
    model_ : LogisticRegression
        With ``target="classes"``; of flattened features over `scale_`.
    n_features_in_ : int
        Values of a trial's features, flattened.
    alpha_ : float
    scale_ : float
        What features are divided by: 1 for pixels; for classes the root of their mean variance.
    classes_ : ndarray
        With ``target="classes"``.
    image_shape_ : (int, int, int)
        With ``target="pixels"``: channels, height and width.

    Notes
    -----
    Maps are vectors of length 1 for the probe, `DINAAligner.transform_responses` with
    ``flat=True``. Fit it to the training trials of the aligner: what is scored on them is too
    good, and there is a warning where images were seen in the fit of the probe, or of the aligner.

    The regression to pixels is kept in as many coordinates as there were trials, so that large maps
    and large images never make a matrix of all features times all pixels.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=2, n_neurons=20, n_trials=60, n_test_images=5, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> train, test = trials.sel(tier="train"), trials.sel(tier="test")
    >>> aligner = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> probe = v1.LinearProbe("pixels", aligner=aligner.fit(train)).fit(train)
    >>> probe.predict(test).shape
    (30, 1, 16, 24)

    Classes are read the same way; they are a coordinate of the trials, `category`, or given:

    >>> bright = train.stimuli["A"].mean(("channel", "height", "width")) > 118
    >>> probe = v1.LinearProbe("classes", aligner=aligner, alpha=1.0)
    >>> probe.fit(train.sel(mouse_id="A"), bright.values).predict(test).shape
    (30,)
    """

    target: str = "pixels"
    _: KW_ONLY
    aligner: DINAAligner | None = None
    maps: str = "responses"
    alpha: Any = "auto"
    n_folds: int = 5
    max_iter: int = 1000

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "target": [StrOptions({"pixels", "classes"})],
        "aligner": [DINAAligner, None],
        "maps": [StrOptions({"responses", "images"})],
        "alpha": ALPHA_CONSTRAINTS,
        "n_folds": FOLDS_CONSTRAINTS,
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    @explained
    def fit(self, X: Any, y: Any = None, *, groups: Any = None) -> Self:
        """Fit to maps of trials, or to features.

        Parameters
        ----------
        X : Trials, DataArray or ndarray
            `Trials`, whose maps the aligner makes; or features (n_trials, ...), such as
            `DINAAligner.transform_responses` gives.
        y : ndarray, optional
            Images (n_trials, channels, height, width), or one class per trial. With `Trials` by
            default their stimuli, or their coordinate ``category``; trials of the category
            "unknown" are left out then.
        groups : ndarray of shape (n_trials,), optional
            Which image each trial shows, where features came; by default all show different ones.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If `Trials` came without an aligner, or groups beside `Trials`.
        ValueError
            If `y` is missing or does not fit, all trials show one image or are of one class, or
            features are constant or not finite.
        NotFittedError
            If the aligner is not fitted.
        """
        self._validate_params()
        check_alpha(self.alpha)
        if isinstance(X, Trials):
            if groups is not None:
                raise TypeError("Trials bring their image ids: leave groups out.")
            warn_about_tiers(X)
            X, y = (X, y) if y is not None else self._with_target(X)
            groups = X.image_ids
        features = self._checked(self._maps(X))
        if y is None:
            raise ValueError(f"y is missing: give the {self.target} of each trial beside features.")
        groups = np.arange(len(features)) if groups is None else as_ids(groups, "groups")
        given = self._given(y)
        for name, values in (("y", given), ("groups", groups)):
            if len(values) != len(features):
                raise ValueError(
                    f"{name} has {len(values)} entries for {len(features)} trials: expected one "
                    "per trial, in their order."
                )
        check_images(groups)
        if np.abs(features - features.mean(axis=0)).max() <= _ROUNDING * np.abs(features).max():
            raise ValueError(
                f"the features of all {len(features)} trials are equal, so that nothing can be "
                "read from them: look at the maps of the aligner, and at the responses."
            )
        fitted = self._fit_pixels if self.target == "pixels" else self._fit_classes
        found = fitted(features, given, groups)
        for name in ("model_", "classes_", "_map", "image_shape_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        self.__dict__.update(found)
        self.n_features_in_ = features.shape[1]
        self._seen = Seen.of(X).hashed(X) if isinstance(X, Trials) else None
        return self

    def _fit_pixels(
        self, features: np.ndarray, images: np.ndarray, groups: np.ndarray
    ) -> dict[str, Any]:
        if images.ndim != 4:
            raise ValueError(
                f"y has the shape {images.shape}: expected images (trials, channels, height, "
                "width); classes are read with target='classes'."
            )
        bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
        if len(bad):
            raise ValueError(
                f"y: {len(bad)} of {len(images)} images, the first number {bad[0]}, hold NaN or "
                "infinite values: leave these trials out."
            )
        check_pixels(images)
        pixels = images.reshape(len(images), -1).astype(np.float64)
        inputs, goal = coordinates(features), coordinates(pixels)
        found = choose_alpha(
            inputs.scores, goal.scores, groups, plain(self.alpha), plain(self.n_folds)
        )
        read = fit_map(inputs, goal, found.alpha)
        shape = tuple(images.shape[1:])
        return {"_map": read, "alpha_": found.alpha, "scale_": 1.0, "image_shape_": shape}

    def _fit_classes(
        self, features: np.ndarray, classes: np.ndarray, groups: np.ndarray
    ) -> dict[str, Any]:
        if classes.ndim != 1 or len(np.unique(classes)) < 2:
            raise ValueError(
                f"y has the shape {classes.shape} and {len(np.unique(classes))} class: expected "
                "one class per trial, of two classes at least."
            )
        scale = float(np.sqrt(features.var(axis=0).mean()))
        scaled = features / scale

        def model(alpha: float) -> LogisticRegression:
            return LogisticRegression(C=1 / alpha, max_iter=plain(self.max_iter))

        alpha = self._alpha_of_classes(model, scaled, classes, groups)
        fitted = model(alpha).fit(scaled, classes)
        return {"model_": fitted, "alpha_": alpha, "scale_": scale, "classes_": fitted.classes_}

    def _alpha_of_classes(
        self, model: Any, features: np.ndarray, classes: np.ndarray, groups: np.ndarray
    ) -> float:
        alphas = _ALPHAS if isinstance(self.alpha, str) else np.sort(np.atleast_1d(self.alpha))
        if len(alphas) == 1:
            return float(alphas[0])
        kinds = np.unique(classes)
        images = {kind: len(np.unique(groups[classes == kind])) for kind in kinds.tolist()}
        fewest = min(images, key=lambda kind: images[kind])
        if images[fewest] < 2:
            raise ValueError(
                f"class {fewest!r} has one image only, so that none can be left out to choose "
                "alpha: give alpha=, or leave the class out."
            )
        folds = StratifiedGroupKFold(min(plain(self.n_folds), images[fewest]))
        right = [
            cross_val_score(model(a), features, classes, groups=groups, cv=folds).mean()
            for a in alphas
        ]
        return float(alphas[len(alphas) - 1 - int(np.argmax(right[::-1]))])

    @explained
    def predict(self, X: Any) -> Any:
        """Read images or classes.

        Parameters
        ----------
        X : Trials, Responses, dict, DataArray or ndarray
            What the aligner makes maps of, responses or images as `maps` says; or maps of either,
            such as its `transform_responses` and `transform_images` give; or, without aligner,
            features.

        Returns
        -------
        DataArray (trial, channel, height, width) or ndarray (n_trials,)
            Images in the units of those at `fit`, not cut to their range, with the coordinates of
            the maps; or classes.

        Raises
        ------
        ValueError
            If features are not finite, or others than at `fit`.
        NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        maps = self._maps(X)
        features = self._checked(maps)
        if features.shape[1] != self.n_features_in_:
            raise ValueError(
                f"{features.shape[1]} features per trial came, at fit there were "
                f"{self.n_features_in_}: give maps of the same space."
            )
        if self.target == "classes":
            return self.model_.predict(features / self.scale_)
        values = self._map.predict(features)
        labels = {"image_id": X.image_ids} if isinstance(X, Trials) else {}
        if isinstance(maps, xr.DataArray):
            coords = maps.coords.items()
            labels |= {str(name): c.values for name, c in coords if c.dims == ("trial",)}
        return labelled_images(values, self.image_shape_, labels, "reconstructions")

    @explained
    def score(self, X: Any, y: Any = None) -> float:
        """Tell how well images or classes are read.

        Parameters
        ----------
        X : Trials, DataArray or ndarray
            As in `fit`.
        y : ndarray, optional
            As in `fit`.

        Returns
        -------
        float
            Pixel correlation, mean over trials and then, of `Trials`, over mice; or the share of
            trials whose class is right.

        Raises
        ------
        ValueError
            If `y` is missing or does not fit.
        """
        check_is_fitted(self)
        if isinstance(X, Trials):
            warn_of_seen(self, X)
            X, y = (X, y) if y is not None else self._with_target(X)
        if y is None:
            raise ValueError(f"y is missing: give the {self.target} of each trial beside features.")
        given, found = self._given(y), self.predict(X)
        if len(given) != len(found):
            raise ValueError(
                f"y has {len(given)} entries for {len(found)} trials: expected as many."
            )
        if self.target == "classes":
            return float((found == self._known(given)).mean())
        mice = X.mouse_ids if isinstance(X, Trials) else np.full(len(found), "all")
        return mean_correlation(given, found.values, mice)

    def _given(self, y: Any) -> np.ndarray:
        """Images, with their dimensions in order, or classes, as the caller gave them."""
        if self.target == "classes":
            return as_ids(y, "y")
        return as_array(as_dims(y, ("trial", *IMAGE_DIMS), "y"), "y")

    def _known(self, classes: np.ndarray) -> np.ndarray:
        """Classes that those of `fit` can be compared with."""
        if classes.ndim != 1:
            raise ValueError(f"y has the shape {classes.shape}: expected one class per trial.")
        known = self.classes_.tolist()
        if not set(classes.tolist()) & set(known):
            raise ValueError(
                f"y has the classes {np.unique(classes).tolist()}, none of which there was at fit: "
                f"{known}. Text and numbers are not the same."
            )
        return classes

    def _with_target(self, trials: Trials) -> tuple[Trials, np.ndarray]:
        """Trials that have a target, and what it is."""
        if self.target == "pixels":
            return trials, images_of(trials)
        rows = {mouse: trials.rows(mouse)[0] for mouse in trials.mice}
        labels = {mouse: labels_of(trials[own], "category") for mouse, own in rows.items()}
        without = [mouse for mouse, own in labels.items() if own is None]
        if without:
            raise ValueError(
                f"the recordings of the mice {without} have no coordinate `category`: give the "
                'classes as y, or recording.assign_coords(category=("trial", ...)).'
            )
        order = np.argsort(np.concatenate(list(rows.values())))
        classes = np.concatenate(list(labels.values()))[order]
        known = are_known(classes)
        return trials[known], classes[known]

    def _maps(self, given: Any) -> Any:
        """Features as they came, trials first, or what the aligner makes of what came."""
        if self.aligner is None:
            if isinstance(given, xr.DataArray) and "trial" in given.dims:
                return given.transpose("trial", ...)
            if isinstance(given, Trials | Mapping) or hasattr(given, "mice"):
                raise TypeError(
                    f"a {type(given).__name__} came, and there is no aligner that makes maps of "
                    "it: LinearProbe(aligner=fitted), or give features (trials, ...)."
                )
            return given
        check_is_fitted(self.aligner)
        of_images = self.maps == "images"
        shapes = (self.aligner.map_shape_, self.aligner.image_shape_ if of_images else None)
        if are_maps(given, *shapes):
            dims = ("feature",) if "feature" in given.dims else IMAGE_DIMS
            return as_dims(given, ("trial", *dims), "maps")
        if of_images:
            return self.aligner.transform_images(given, flat=True)
        return self.aligner.transform_responses(given, flat=True)

    def _checked(self, maps: Any) -> np.ndarray:
        values = as_array(maps, "features").astype(np.float64)
        if values.ndim < 2 or not values.size:
            raise ValueError(
                f"features have the shape {values.shape}: expected (trials, ...) of at least one."
            )
        flat = values.reshape(len(values), -1)
        bad = np.flatnonzero(~np.isfinite(flat).all(axis=1))
        if len(bad):
            raise ValueError(
                f"features of {len(bad)} of {len(flat)} trials, the first number {bad[0]}, are not "
                "finite: leave these trials out, or look for what made them."
            )
        if self.aligner is not None and values.ndim > 2:  # maps, as vectors of length 1
            length = np.linalg.norm(flat, axis=1, keepdims=True)
            flat = flat / np.where(length > 0, length, 1)
        return flat

    def __sklearn_is_fitted__(self) -> bool:
        return "n_features_in_" in self.__dict__

    def __sklearn_clone__(self) -> Self:
        """Clone all but the aligner, which is fitted already and only read."""
        return type(self)(**self.get_params(deep=False))

    def __getstate__(self) -> dict[str, Any]:
        """Pickle all but what is known of the recordings of this process."""
        return {name: v for name, v in super().__getstate__().items() if name != "_seen"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.required = False  # Trials bring it
        return tags
