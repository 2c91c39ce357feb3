"""Bring the core of a fitted model to a model of other animals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from v1tlearn.estimators._inputs import other_model

if TYPE_CHECKING:
    from v1tlearn.estimators.base import EncodingRegressor


def adopt_core(new: EncodingRegressor, trained: EncodingRegressor, *, freeze: bool) -> None:
    """Give a model that was just started the core of a trained one.

    Parameters
    ----------
    new : EncodingRegressor
        With its mice and initial weights; changed in place.
    trained : EncodingRegressor
        Fitted.
    freeze : bool
        Keep the core as it is from now on.

    Raises
    ------
    ValueError
        If the new trials, or changed parameters, ask for another core.
    """
    _check_behavior(new, trained)
    core, source = new.module_.core, trained.module_.core
    if core.input_shape != source.input_shape:
        raise ValueError(
            f"the core was trained on images of {source.input_shape} (channels with planes of "
            f"behaviour, height, width, after cropping and resizing), those of the new trials are "
            f"{core.input_shape}. Bring them to one form: Grayscale makes one channel of several, "
            "ResizeStimuli or image_size=(height, width) change the size."
        )
    own = set(core.mouse_parameters())
    ours = {k: v.shape for k, v in core.state_dict().items() if k not in own}
    others = {
        k: v for k, v in source.state_dict().items() if k not in set(source.mouse_parameters())
    }
    if ours != {k: v.shape for k, v in others.items()}:
        changed = other_model(trained.parameters_, new.parameters_)
        raise ValueError(
            f"with the parameters that changed ({', '.join(sorted(changed))}) the core has other "
            "layers than the trained one. Change only parameters of readout, shifter and training, "
            "or fit anew."
        )
    core.load_state_dict({**core.state_dict(), **others})
    new.core_frozen_ = bool(freeze)
    if freeze:
        new.module_.core.freeze()


def _check_behavior(new: EncodingRegressor, trained: EncodingRegressor) -> None:
    ours = (new.behavior_mode_, new.core_columns_)
    theirs = (trained.behavior_mode_, trained.core_columns_)
    if ours != theirs:
        raise ValueError(
            f"the core takes behaviour by {theirs[0]!r} with the columns {theirs[1]}, but with the "
            f"trials of {new.mice_} it would be {ours[0]!r} with {ours[1]}. Give these animals "
            "the same behaviour columns, or choose behavior_columns and behavior_mode alike."
        )
