"""Models that predict the responses of visual cortex neurons, in several animals at once."""

from v1tlearn import decoding, inspection, interop, metrics, model_selection, preprocessing, search
from v1tlearn.datasets import (
    bin_spikes,
    fetch_franke2022,
    fetch_mahuas2020,
    fetch_nat60k,
    fetch_natimg2800,
    fetch_sensorium2022,
    fetch_sensorium2023,
    make_coarse_recordings,
    make_movie_recordings,
    make_v1_recordings,
    open_recordings,
    read_cadena2019,
    read_nat60k,
    read_natimg2800,
    read_onken2016,
    read_sensorium,
    read_sensorium2023,
    read_stimulus_spikes,
    read_text16,
    receptive_fields_from_outlines,
    save_recordings,
    validate_recordings,
    with_receptive_fields,
    write_sensorium,
)
from v1tlearn.decoding import LinearProbe, RidgeDecoder, decoding_table
from v1tlearn.estimators import (
    CNNRegressor,
    DINAAligner,
    EncodingRegressor,
    EnsembleRegressor,
    FullModelRegressor,
    LNRegressor,
    MinimodelRegressor,
    MovieCNNRegressor,
    MovieLNRegressor,
    PretrainedViTRegressor,
    V1TRegressor,
    ViTRegressor,
    load,
)
from v1tlearn.interop import load_dina, load_minimodel, load_sensorium, load_v1t
from v1tlearn.metrics import score_table
from v1tlearn.preprocessing import (
    CenterCrop,
    Grayscale,
    ResizeStimuli,
    SpontaneousProjector,
    TrialStandardizer,
)
from v1tlearn.trials import Responses, Trials, concat

__all__ = [
    "CNNRegressor",
    "DINAAligner",
    "CenterCrop",
    "EncodingRegressor",
    "EnsembleRegressor",
    "FullModelRegressor",
    "Grayscale",
    "LNRegressor",
    "LinearProbe",
    "MinimodelRegressor",
    "MovieCNNRegressor",
    "MovieLNRegressor",
    "PretrainedViTRegressor",
    "ResizeStimuli",
    "Responses",
    "RidgeDecoder",
    "SpontaneousProjector",
    "TrialStandardizer",
    "Trials",
    "V1TRegressor",
    "ViTRegressor",
    "bin_spikes",
    "concat",
    "decoding",
    "decoding_table",
    "fetch_franke2022",
    "fetch_mahuas2020",
    "fetch_nat60k",
    "fetch_natimg2800",
    "fetch_sensorium2022",
    "fetch_sensorium2023",
    "inspection",
    "interop",
    "load",
    "load_dina",
    "load_minimodel",
    "load_sensorium",
    "load_v1t",
    "make_coarse_recordings",
    "make_movie_recordings",
    "make_v1_recordings",
    "metrics",
    "model_selection",
    "open_recordings",
    "preprocessing",
    "read_cadena2019",
    "read_nat60k",
    "read_natimg2800",
    "read_onken2016",
    "read_sensorium",
    "read_sensorium2023",
    "read_stimulus_spikes",
    "read_text16",
    "receptive_fields_from_outlines",
    "save_recordings",
    "score_table",
    "search",
    "validate_recordings",
    "with_receptive_fields",
    "write_sensorium",
]


def __getattr__(name: str) -> str:
    """Tell the version, which is written in the metadata of the installed package alone."""
    if name != "__version__":
        raise AttributeError(f"module 'v1tlearn' has no attribute {name!r}")
    from importlib.metadata import version

    return version("v1tlearn")
