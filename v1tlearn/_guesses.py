"""What a word that is not known was meant to be: a slip of the keys, or another package's word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

# What scikit-learn, Keras, Lightning, timm and the published code call our parameters.
PARAMETER_HABITS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("epochs", "n_epochs", "num_epochs", "nb_epoch", "max_iter", "n_iter", "n_steps"),
        ("max_epochs", "n_trials"),
    ),
    **dict.fromkeys(("learning_rate", "learning_rate_init", "eta", "step_size"), ("lr",)),
    **dict.fromkeys(("seed", "random_seed", "rng", "generator"), ("random_state",)),
    **dict.fromkeys(("dropout", "dropout_rate", "p_dropout"), ("mlp_dropout", "attention_dropout")),
    **dict.fromkeys(("n_layers", "num_layers", "layers", "depth"), ("n_blocks", "n_layers")),
    **dict.fromkeys(("heads", "num_heads", "nhead"), ("n_heads",)),
    **dict.fromkeys(("d_model", "hidden_dim", "hidden_size", "dim"), ("embed_dim",)),
    **dict.fromkeys(("n_hidden", "hidden_units"), ("hidden_channels", "mlp_dim", "embed_dim")),
    **dict.fromkeys(
        ("channels", "n_channels", "filters", "n_filters", "width"), ("hidden_channels",)
    ),
    **dict.fromkeys(("kernel", "kernel_size", "filter_size"), ("input_kernel", "hidden_kernel")),
    **dict.fromkeys(
        ("patience", "early_stopping", "n_iter_no_change"), ("lr_patience", "max_lr_drops")
    ),
    **dict.fromkeys(("scheduler", "lr_scheduler", "lr_schedule"), ("schedule",)),
    **dict.fromkeys(("validation_split", "val_split", "test_size"), ("validation_fraction",)),
    **dict.fromkeys(("gpu", "use_gpu", "cuda", "use_cuda", "accelerator"), ("device",)),
    **dict.fromkeys(("amp", "dtype", "mixed_precision", "half"), ("precision",)),
    **dict.fromkeys(("alpha", "l1", "reg", "regularization"), ("readout_l1", "core_l1")),
    **dict.fromkeys(("momentum", "bn_momentum"), ("batch_norm_momentum",)),
    **dict.fromkeys(("input_shape", "input_size", "img_size", "resize"), ("image_size",)),
    **dict.fromkeys(("normalize", "standardise", "scale_inputs"), ("standardize",)),
    **dict.fromkeys(("n_estimators", "n_models", "num_models"), ("n_candidates", "n_members")),
    **dict.fromkeys(("estimators", "models", "base_estimator", "model"), ("estimator",)),
    "crop_scale": ("scale",),
    "gamma_input": ("laplace",),
    "gamma_readout": ("readout_l1",),
    "param_grid": ("space",),
    "param_distributions": ("space",),
}

# The same for the values of options.
VALUE_HABITS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("bf16", "half", "fp16", "float16", "16_mixed", "bf16_mixed", "mixed"), ("bfloat16",)
    ),
    **dict.fromkeys(("fp32", "float", "full", "32", "single"), ("float32",)),
    **dict.fromkeys(("gpu", "nvidia"), ("cuda",)),
    **dict.fromkeys(("no", "off", "false", "null"), ("none",)),
    "mlp": ("b_mlp",),
    **dict.fromkeys(("behavior", "behaviour", "behaviors"), ("b_mlp", "channels")),
}


def guess(
    word: str, known: Iterable[str], habits: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Find the known words that an unknown one was meant to be, the likeliest first."""
    plain = {_plain(name): name for name in known}
    run_together = {name.replace("_", ""): name for name in (*plain, *(habits or {}))}
    same = run_together.get(_plain(word).replace("_", ""), _plain(word))
    meant = [name for name in (habits or {}).get(same, ()) if _plain(name) in plain]
    if meant:
        return meant
    if same in plain:
        return [plain[same]]
    close = difflib.get_close_matches(_plain(word), plain, n=2, cutoff=0.6)
    if len(close) == 2 and _ratio(word, close[1]) < _ratio(word, close[0]) - 0.1:
        close = close[:1]
    if not close:  # a part of the name
        parts = set(_plain(word).split("_"))
        close = [name for name in plain if parts <= set(name.split("_"))][:3]
    return [plain[name] for name in close]


def did_you_mean(words: Sequence[str]) -> str:
    """Ask for them, or say nothing where there are none."""
    return f": did you mean {' or '.join(words)}?" if words else "."


def in_words(names: Sequence[str]) -> str:
    """Join names as a sentence does."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _plain(word: str) -> str:
    return re.sub(r"[\s-]+", "_", str(word).strip()).lower()


def _ratio(word: str, other: str) -> float:
    return difflib.SequenceMatcher(None, _plain(word), other).ratio()
