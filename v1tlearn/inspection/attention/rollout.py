"""Where a fitted transformer looks: attention rollout over the images of trials."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from v1tlearn.inspection.attention._maps import labelled, maps_by_block, open_attention
from v1tlearn.training import isolated
from v1tlearn.trials import Trials


@isolated()
def attention_rollout(
    estimator: Any,
    trials: Trials,
    *,
    head_reduction: str = "mean",
    placement: str = "stretched",
) -> dict[str, xr.DataArray]:
    """Map what each place of an image adds to what a transformer reads from it.

    The images of every trial pass through cropping, moving and resizing as in `predict`, with the
    behaviour of the trial where the core takes it; the weights of one block are held at a time.

    Parameters
    ----------
    estimator : V1TRegressor, ViTRegressor, PretrainedViTRegressor or EncodingRegressor
        Fitted, alone, in a Pipeline or found by a search; any whose core has attention. It stays as
        it is.
    trials : Trials
        Of mice that the model knows. Responses are not looked at.
    head_reduction : {"mean", "max"}, default="mean"
        How heads are reduced; "max" is what the code of Li et al. (2023) does.
    placement : {"stretched", "centers"}, default="stretched"
        "stretched", as published, spreads the grid of patches over the whole image, as if they did
        not overlap; "centers" puts each at its true centre, and is constant beyond the outermost.
        They are the same where patches tile the image.

    Returns
    -------
    dict of str to DataArray (trial, height, width)
        Per mouse, float32, in the order of its trials, from 0 to 1 in each map; all 0 where every
        place counts alike. ``height`` and ``width`` tell where the pixels that the core sees lie in
        the images that came to `fit`, in pixels of these from the centre of the upper left one, so
        that maps of cropped images are where the crop is. ``image_id``, ``tier`` and ``trial_id``
        come along. Where the crop moves with the eye, ``moved_x`` and ``moved_y`` tell by how many
        pixels it lay right and down of that place in each trial.

    Raises
    ------
    TypeError
        If the model has no attention, or is no single model; or these are no trials.
    ValueError
        If trials are not of the mice, images or behaviour of `fit`, or an option is unknown.
    NotFittedError
        Before `fit`.

    See Also
    --------
    v1tlearn.nn.attention_rollout : The same of tensors, with the mathematics.
    attention_center_of_mass : Where maps have their middle.
    AttentionRolloutDisplay : Draws maps over images.

    Notes
    -----
    Computed in float32, whatever the `precision` of the model.

    Published maps are of the class token. Of a pretrained transformer maps are of the tokens that
    the model reads, with ``tokens="patch"`` the mean over patches; class and register tokens pass
    on what they hold and have no place on the map.

    A map tells where the model's tokens get their content from, not which pixels make a neuron
    respond: for that see `receptive_fields`. Models that were not trained have maps, too; a control
    belongs to every claim.

    References
    ----------
    Abnar and Zuidema, "Quantifying attention flow in transformers", ACL, 2020.
    Li et al., "V1T: large-scale mouse V1 response prediction using a Vision Transformer", TMLR,
    2023, Figs. 3 and A.3.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import attention_rollout
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> model = v1.V1TRegressor(patch_size=4, patch_stride=4, n_blocks=1, n_heads=2, embed_dim=8,
    ...                         mlp_dim=8, max_epochs=2, random_state=0)
    >>> maps = attention_rollout(model.fit(trials.sel(tier="train")), trials.sel(tier="test"))
    >>> maps["A"].dims, maps["A"].shape
    (('trial', 'height', 'width'), (12, 16, 24))
    """
    found = open_attention(estimator, trials, head_reduction, placement)
    out = {}
    for mouse in found.trials.mice:
        parts = list(maps_by_block(found, mouse, head_reduction, placement))
        maps, moved = zip(*parts, strict=True)
        attrs = {"head_reduction": head_reduction, "placement": placement}
        shifts = None if moved[0] is None else np.concatenate(moved)
        out[mouse] = labelled(found, mouse, np.concatenate(maps), shifts, attrs)
    return out
