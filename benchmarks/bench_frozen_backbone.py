"""A fit on a frozen backbone: features computed once, against the backbone in every epoch.

The transformer has the size of the first five blocks of DINOv3 ViT-S/16, with random weights, which
take the same time as trained ones and are loaded from a folder as those are. One mouse is simulated
as noise, with images of 64 x 128 pixels. Both are fits of the same estimator for the same epochs,
one with ``feature_cache=None``; that they end with the same weights, within rounding, is checked.
The last row tells what a file of features takes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
import transformers
from _measure import Row, parser, report, seconds, summary
from _models import make_trials

import v1tlearn as v1
from v1tlearn.training import resolve_device

EPOCHS = 20
BAR = 10.0
SIZES = {
    False: {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6}
    | {"num_hidden_layers": 5, "patch_size": 16, "num_register_tokens": 4},
    True: {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    | {"num_hidden_layers": 2, "patch_size": 16, "num_register_tokens": 4},
}


def save_backbone(folder: Path, args: argparse.Namespace) -> Path:
    """Save a transformer with random weights."""
    torch.manual_seed(0)
    found = transformers.AutoConfig.for_model("dinov3_vit", **SIZES[args.quick])
    transformers.AutoModel.from_config(found).save_pretrained(folder)
    return folder


def make(
    backbone: Path, cache: str | Path | None, args: argparse.Namespace
) -> v1.PretrainedViTRegressor:
    """Make an estimator that is not fitted yet."""
    return v1.PretrainedViTRegressor(
        backbone,
        block=SIZES[args.quick]["num_hidden_layers"] - 1,
        normalize="layer",
        shift="none",
        space_init=0.3,
        batch_size=64,
        max_epochs=EPOCHS,
        schedule="constant",
        validation_fraction=0,
        feature_cache=cache,
        device=args.device,
        precision="float32",
        random_state=0,
    )


def check_same(ours: v1.PretrainedViTRegressor, theirs: v1.PretrainedViTRegressor) -> None:
    """Check that two fits ended with the same readout."""
    pairs = zip(
        ours.module_.readouts.parameters(), theirs.module_.readouts.parameters(), strict=True
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def main() -> None:
    made = parser(__doc__)
    made.set_defaults(repeats=1)
    args = made.parse_args()
    args.device = str(resolve_device(args.device))
    trials, neurons, image = (24, 5, (32, 64)) if args.quick else (192, 100, (64, 128))
    data = make_trials(1, trials, neurons, image, positions=False)
    device = torch.device(args.device)
    with tempfile.TemporaryDirectory() as within:
        backbone, folder = save_backbone(Path(within) / "backbone", args), Path(within) / "features"
        folder.mkdir()
        fits = {place: make(backbone, place, args) for place in (None, "auto", folder)}
        pairs: dict[str | Path, list[tuple[float, float]]] = {"auto": [], folder: []}
        for _ in range(args.repeats):
            took = {
                place: seconds(lambda fit=fit: fit.fit(data), device) for place, fit in fits.items()
            }
            for place, found in pairs.items():
                found.append((took[None], took[place]))
        for place in pairs:
            check_same(fits[place], fits[None])
        again = seconds(lambda: make(backbone, folder, args).fit(data), device)
        size = sum(file.stat().st_size for file in folder.rglob("*.features"))
    note = f"{EPOCHS} epochs, {trials} images of {image[0]} x {image[1]}, {neurons} neurons"
    bar = None if args.quick else BAR
    rows = []
    for place, what in (("auto", "in memory"), (folder, "in a file")):
        plain, ours, ratio = summary(pairs[place])
        rows.append(Row(f"fit, features {what}", plain, ours, "s", ratio, bar, note))
    rows.append(Row("another fit, from the file", None, again, "s", note=note))
    rows.append(Row("the file", None, size / 1e6, "MB", note=f"{trials} images"))
    report("frozen_backbone", rows, args)


if __name__ == "__main__":
    main()
