"""
Train a small vision transformer without labels on natural-like images.

Noise is added to dead-leaves images, and the images without it are predicted from the tokens of
patches (denoising autoencoder: Vincent et al. 2008). Hidden patches of such images can hardly be
predicted from others. What is saved is a backbone as any other, in a folder::

    python -m papers.vit_encoding2026.pretrain --out dinov2-leaves
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers

import v1tlearn as v1
from v1tlearn.nn import Pixels

NOISE = 1.0  # standard deviation, in pixels that are scaled for the backbone
SIZES = {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4, "mlp_ratio": 2}


def natural_images(n_images: int, side: int, seed: int) -> torch.Tensor:
    """Draw images (n, 3, side, side) as a backbone takes them."""
    recordings = v1.make_v1_recordings(
        n_mice=1,
        n_neurons=1,
        n_trials=n_images,
        n_test_images=1,
        n_repeats=1,
        image_shape=(side, side),
        random_state=seed,
    )
    stimuli = np.asarray(recordings["A"]["stimuli"][:n_images], dtype=np.float32)
    return Pixels(1)(torch.from_numpy(stimuli))


def patches_of(images: torch.Tensor, patch: int) -> torch.Tensor:
    """Grey levels (n, patches, pixels) with mean 0 and variance 1."""
    patches = F.unfold(images[:, :1], patch, stride=patch).mT
    return (patches - patches.mean()) / patches.std()


def pretrain(
    folder: Path,
    *,
    n_images: int = 2000,
    patch: int = 8,
    side: int = 32,
    epochs: int = 20,
    seed: int = 0,
) -> list[float]:
    """Train, save into `folder`, and give the share of variance left after each epoch.

    Images have `side` pixels on either side, patches `patch`. The folder must not be there before,
    and is there only when it is whole.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: choose another folder, or remove it")
    images = natural_images(n_images, side, seed)
    targets = patches_of(images, patch)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = transformers.Dinov2Config(
            **SIZES, patch_size=patch, image_size=side, layerscale_value=1.0
        )
        model = transformers.Dinov2Model(found)
        decode = torch.nn.Linear(found.hidden_size, patch**2)
        optimizer = torch.optim.AdamW([*model.parameters(), *decode.parameters()], lr=3e-3)
        losses = []
        for _ in range(epochs):
            total = 0.0
            for rows in torch.randperm(n_images).split(32):
                clean = images[rows]
                noisy = clean + NOISE * torch.randn_like(clean[:, :1])  # grey as the images
                tokens = model(noisy).last_hidden_state[:, 1:]
                loss = (decode(tokens) - targets[rows]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(rows)
            losses.append(total / n_images)
    beside = folder.with_name(f".{folder.name}.part{os.getpid()}")
    model.eval().save_pretrained(beside)
    beside.rename(folder)
    return losses


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the backbone")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    losses = pretrain(args.out, n_images=args.images, epochs=args.epochs, seed=args.seed)
    print(f"share of the variance of pixels that is left: {losses[0]:.3f}", end="")
    print(f" after the first epoch, {losses[-1]:.3f} after {len(losses)}; saved to {args.out}")


if __name__ == "__main__":
    main()
