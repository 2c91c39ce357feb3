"""`predict` and `score`, the same for single models, ensembles and searches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from sklearn.utils.validation import check_is_fitted

from v1tlearn.estimators._calls import explained
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._leaks import Seen, warn_of_seen_images
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators._movies import frames_of_movies
from v1tlearn.estimators._ranges import warn_of_other_ranges
from v1tlearn.estimators._reading import Call, answer, names_at_fit, read_predict, read_score
from v1tlearn.metrics import single_trial_correlation
from v1tlearn.metrics._in_parts import correlation_of_parts
from v1tlearn.nn import EncodingModel
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials.folding import unfold_time

_HELD_BYTES = 2**27  # of predictions that are held to be scored; more come in parts
_PART_BYTES = 2**25


def _n_bytes(target: Responses) -> int:
    """Bytes of predictions of all these responses."""
    counts = target.n_frames
    frames = np.ones(len(target), np.int64) if counts is None else counts
    per_mouse = target.n_neurons.items()
    return sum(4 * n * int(frames[target.rows(mouse)[0]].sum()) for mouse, n in per_mouse)


class PredictionMixin:
    """`predict` and `score` of an estimator that predicts `Trials` mouse by mouse."""

    def _knows(self) -> tuple[Fitted, EncodingModel]:
        """Give what is known of the animals, and a model of them."""
        raise NotImplementedError

    def _predict(self, trials: Trials) -> dict[str, np.ndarray]:
        """Predict every mouse of trials that were checked, in data units."""
        raise NotImplementedError

    def _trained_on(self) -> Seen | None:
        """Give the images that the model was trained on, where it was in this process."""
        return getattr(self, "_seen", None)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle all but what is known of the recordings of this process."""
        state: Any = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_seen"}

    def _warn_of_seen_images(self, trials: Trials) -> None:
        """Warn where trials that are to be scored repeat images of the training."""
        warn_of_seen_images(self._trained_on(), trials)

    @explained
    def predict(
        self,
        stimuli: Any,
        behaviors: Any = None,
        mouse_ids: Any = None,
        *,
        behavior_names: Sequence[str] | None = None,
        frame_rate: float | None = None,
    ) -> Any:
        """Predict responses, in the units of the responses given to `fit`.

        Parameters
        ----------
        stimuli : Trials, dict, list or ndarray
            As in `fit`. A model that resizes images, and does not crop them, takes resized ones,
            too.
        behaviors : dict, list or ndarray, optional
            Needed if the model was fitted with behaviour.
        mouse_ids : sequence, optional
            Which mouse's neurons to predict: one id per recording (list) or per trial (array).
        behavior_names : sequence of str, optional
        frame_rate : float, optional
            Frames per second of movies that are given as arrays; without it they are taken to be
            of the rate at fit.

        Returns
        -------
        Responses, dict, list or ndarray
            In the form asked: `Trials` give `Responses`; a dict a dict under the same keys; a list
            a list; an array of one mouse (trials, [time,] neurons), NaN behind the last frame of a
            movie; a flat array of several mice a 1-D
            object array of vectors. `Responses` bear the unit ids of the trials, or, where these
            have none, those of `neurons_`.

        Raises
        ------
        ValueError
            For a mouse the model does not know, other stimuli or behaviour than at `fit`.
        NotFittedError
            Before `fit`.

        Notes
        -----
        How many images go through the model at once is chosen for speed, whatever the `batch_size`
        of the training: on a CPU as many as let the output of the widest layer stay in its caches,
        elsewhere hundreds, as far as free memory allows. Predictions differ by rounding errors
        only.

        Where no behaviour enters the core and no crop moves with the eye, an image that is shown
        several times, or to several mice with the same image statistics, goes through the core
        once.

        Movies are predicted frame by frame and read a few hundred frames at a time, however long
        they are; what is predicted is in memory as a whole, four bytes for each trial, or frame,
        and neuron. `save_predictions` writes predictions larger than memory, and `predict_parts` of
        a model that sees time gives them out in parts.

        `precision` holds for predictions, too; "auto" predicts in float32.

        Stimuli and behaviour that look as if they were in another unit than at `fit`, such as grey
        levels from 0 to 1 for 0 to 255, are warned of, by some trials of each mouse.
        """
        check_is_fitted(self)
        fitted, model = self._knows()
        whole, form = read_predict(
            fitted, stimuli, behaviors, mouse_ids, behavior_names, frame_rate=frame_rate
        )
        trials = frames_of_movies(whole, labelled=model.context_frames is None)
        check_like_fit(fitted, model, trials)
        warn_of_other_ranges(fitted, trials)
        values = unfold_time(self._predict(trials), like=whole)
        predictions = Responses.from_arrays(values, like=whole, name="predictions")
        predictions = predictions._with_known_neurons(
            {mouse: one.unit_ids for mouse, one in fitted.mice.items()}
        )
        return answer(predictions, form, one_mouse=len(fitted.mice) == 1)

    @explained
    def score(
        self,
        stimuli: Any,
        behaviors: Any = None,
        responses: Any = None,
        mouse_ids: Any = None,
        sample_weight: Any = None,
        *,
        frame_rate: float | None = None,
    ) -> float:
        """Mean single-trial correlation of predicted and recorded responses.

        Parameters
        ----------
        stimuli, behaviors, responses, mouse_ids
            As in `fit`; behaviour columns as at `fit`.
        sample_weight : ndarray of shape (n_trials,), optional
            Weights of the trials in the correlation.
        frame_rate : float, optional
            As in `predict`.

        Returns
        -------
        float
            Correlation per neuron over trials, mean over neurons, then over mice.

        See Also
        --------
        v1tlearn.metrics.single_trial_correlation

        Notes
        -----
        Predictions that take more than 128 MiB are made and added up in parts, of 32 MiB or one
        movie, unless trials are weighted.
        """
        check_is_fitted(self)
        fitted, model = self._knows()
        call = read_score(
            fitted.mice,
            stimuli,
            behaviors,
            responses,
            mouse_ids,
            names_at_fit(fitted),
            frame_rate=frame_rate,
        )
        trials = frames_of_movies(call.trials, labelled=model.context_frames is None)
        check_like_fit(fitted, model, trials)
        warn_of_other_ranges(fitted, trials)
        self._warn_of_seen_images(call.trials)
        if sample_weight is None and _n_bytes(call.target) > _HELD_BYTES:
            return correlation_of_parts(self._in_parts(call, model))
        values = unfold_time(self._predict(trials), like=call.trials)
        predictions = Responses.from_arrays(values, like=call.trials)
        found = single_trial_correlation(call.target, predictions, sample_weight=sample_weight)
        return cast(float, found)  # the mean over mice

    def _in_parts(self, call: Call, model: EncodingModel) -> Iterator[tuple[Responses, Responses]]:
        """Responses and predictions of some trials of one mouse after the others."""
        for mouse in call.trials.mice:
            places, _ = call.trials.rows(mouse)
            step = max(1, _PART_BYTES * len(places) // max(1, _n_bytes(call.target[places])))
            for start in range(0, len(places), step):
                some = places[start : start + step]
                own = call.trials[some]
                trials = frames_of_movies(own, labelled=model.context_frames is None)
                values = unfold_time(self._predict(trials), like=own)
                yield call.target[some], Responses.from_arrays(values, like=own)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]  # of BaseEstimator, which comes after
        tags.input_tags.two_d_array = False
        tags.target_tags.required = False  # Trials bring it
        tags.target_tags.single_output = False
        tags.target_tags.multi_output = True
        tags.non_deterministic = False
        return tags
