"""From a trained model to one of other animals, with the same core."""

from __future__ import annotations

from dataclasses import replace

import torch

from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import other_model
from v1tlearn.estimators._movies import rates_differ
from v1tlearn.nn import Core, EncodingModel


def adopt_core(
    new: EncodingModel, known: Fitted, trained: EncodingModel, fitted: Fitted, *, freeze: bool
) -> Fitted:
    """Give a model that was just begun what the animals of a trained one share."""
    ours = known.behavior_mode, known.core_columns
    theirs = fitted.behavior_mode, fitted.core_columns
    if ours != theirs:
        raise ValueError(
            f"the core takes behaviour by {theirs[0]!r} with the columns {theirs[1]}, but with the "
            f"trials of {list(known.mice)} it would be {ours[0]!r} with {ours[1]}. Give these "
            "animals the same behaviour columns, or choose behavior_columns and behavior_mode "
            "alike."
        )
    core, source = new.core, trained.core
    if core.input_shape != source.input_shape:
        raise ValueError(
            f"the core was trained on images of {source.input_shape} (channels with planes of "
            f"behaviour, height, width, after cropping and resizing), those of the new trials are "
            f"{core.input_shape}. Bring them to one form: Grayscale makes one channel of several, "
            "ResizeStimuli or image_size=(height, width) change the size."
        )
    rates = known.frame_rate, fitted.frame_rate
    if source.context_frames is not None and rates_differ(rates):
        raise ValueError(
            f"the core was trained on movies of {rates[1]:g} frames per second, and sees time in "
            f"frames, but those of {list(known.mice)} have {rates[0]:g}: bring stimuli and "
            "responses to that rate, or fit anew."
        )
    own, shared = _shared(core), _shared(source)
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in shared.items()}:
        changed = other_model(fitted.parameters, known.parameters)
        raise ValueError(
            f"with the parameters that changed ({', '.join(sorted(changed))}) the core has other "
            "layers than the trained one. Change only parameters of readout, shifter and training, "
            "or fit anew."
        )
    core.load_state_dict({**core.state_dict(), **shared})
    if freeze:
        core.freeze()
    return replace(known, core_frozen=freeze)


def _shared(core: Core) -> dict[str, torch.Tensor]:
    of_mice = set(core.mouse_parameters())
    return {name: v for name, v in core.state_dict().items() if name not in of_mice}
