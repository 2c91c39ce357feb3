"""A fit of Vi-ST on a frozen prior: features of frames computed once, against anew for each window.

The prior is a transformer of random weights, which take the same time as trained ones. One mouse
is simulated. Both are fits of the same estimator for the same epochs, timed by the processor's
time, one with ``feature_cache=None``; that they end with the same weights, within rounding, is
checked. Windows are random, so that each frame is in several of them.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
import transformers
from _measure import Row, compare, parser, report

import v1tlearn as v1

EPOCHS = 6
SIZES = {
    False: {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3}
    | {"num_hidden_layers": 4, "patch_size": 16, "num_register_tokens": 4},
    True: {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    | {"num_hidden_layers": 2, "patch_size": 16, "num_register_tokens": 4},
}


def make(backbone: Path, cache: str | None, *, quick: bool) -> v1.ViSTRegressor:
    """Make an estimator that is not fitted yet."""
    return v1.ViSTRegressor(
        prior="pretrained",
        backbone=backbone,
        block=SIZES[quick]["num_hidden_layers"] - 1,
        feature_cache=cache,
        condition="video",
        n_layers=2,
        channels=16,
        kernels=((1, 5),),
        loss="rmse",
        window_frames=16,
        batch_size=2,
        steps_per_epoch=2 if quick else 8,
        max_epochs=EPOCHS,
        warmup_epochs=1,
        average_from=None,
        dropout=0.0,
        validation_fraction=0.0,
        random_state=0,
        device="cpu",
        precision="float32",
    )


def check_same(ours: v1.ViSTRegressor, theirs: v1.ViSTRegressor) -> None:
    """Check that two fits ended with the same network."""
    for one, other in zip(ours.module_.parameters(), theirs.module_.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def main() -> None:
    made = parser(__doc__)
    made.set_defaults(repeats=1)
    args = made.parse_args()
    args.device = "cpu"  # whose time is told
    torch.set_num_threads(1)
    n_movies, n_frames = (2, 24) if args.quick else (4, 60)
    recordings = v1.make_movie_recordings(
        1, 5, n_movies, 1, 2, n_frames=n_frames, image_shape=(64, 64), random_state=0
    )
    train = v1.Trials(recordings).sel(tier="train")
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        found = transformers.AutoConfig.for_model("dinov3_vit", **SIZES[args.quick])
        transformers.AutoModel.from_config(found).save_pretrained(folder)
        plain, ours = (make(Path(folder), c, quick=args.quick) for c in (None, "memory"))
        times = compare(
            lambda: plain.fit(train),
            lambda: ours.fit(train),
            args.repeats,
            clock=time.process_time,
        )
    check_same(ours, plain)
    shown = EPOCHS * plain.steps_per_epoch * plain.batch_size * plain.window_frames
    note = f"{shown} frames in windows, of {int(train.n_frames.sum())} frames, one core"
    report(
        "movie_features",
        [Row("Vi-ST, fit, features in memory", *times[:2], "s", times[2], note=note)],
        args,
    )


if __name__ == "__main__":
    main()
