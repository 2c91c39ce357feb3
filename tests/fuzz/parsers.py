"""All that is fuzzed: readers of recordings, readers of models, and calls."""

from tests.fuzz import model_parsers as models
from tests.fuzz import recording_parsers as recordings
from tests.fuzz import written_parsers as written
from tests.fuzz.arguments import Arguments
from tests.fuzz.functions import Functions
from tests.fuzz.harness import Structures
from tests.fuzz.inspections import Inspections
from tests.fuzz.parameters import Parameters

PARSERS = {
    make.__name__: make
    for make in (
        recordings.npy,
        recordings.zips,
        recordings.config,
        recordings.netcdf,
        recordings.sealed,
        recordings.trials,
        recordings.nat60k,
        recordings.objects,
        recordings.mat,
        recordings.deflated_mat,
        recordings.mat73,
        recordings.structs,
        recordings.deflated_structs,
        recordings.cadena2019,
        recordings.nwb,
        recordings.nwb_movies,
        recordings.movies,
        recordings.cells,
        recordings.spikes,
        recordings.spikes_v73,
        models.yaml,
        models.checkpoint,
        models.pickles,
        models.legacy,
        models.npz,
        models.minimodel,
        models.model,
        models.studies,
        models.checkpoint_folder,
        models.ensemble,
        models.weights,
        models.decoder,
        models.dina,
        models.vist,
        models.backbone,
        written.csv_log,
        written.run_folder,
        written.parameters_json,
        written.parameters_yaml,
        written.registry,
        written.registry_zip,
        written.publishing,
        written.card,
        written.predictions,
        written.cache,
        written.nwb_units,
        written.packed,
    )
}

# Readers whose files are changed in what they say, too, not only in their bytes.
SAYING = ("npy", "zips", "config", "netcdf", "trials", "nat60k", "mat", "cadena2019", "nwb")
SAYING += ("mat73", "structs", "movies", "cells", "spikes", "yaml", "npz", "minimodel", "model")
SAYING += ("studies", "ensemble", "decoder", "backbone", "csv_log", "run_folder", "registry")
SAYING += ("parameters_json", "parameters_yaml", "registry_zip", "publishing", "predictions")
SAYING += ("nwb_units", "nwb_movies", "cache")
STRUCTURES = {
    f"{name}_structure": lambda folder, make=PARSERS[name]: Structures(make(folder))
    for name in SAYING
}

CALLS = {
    "arguments": Arguments,
    "functions": Functions,
    "inspections": Inspections,
    "parameters": Parameters,
}

# How many inputs of each in a thousand, about: cheap ones take the bulk.
SHARES = {
    "npy": 20,
    "zips": 110,
    "config": 110,
    "netcdf": 6,
    "sealed": 5,
    "trials": 5,
    "nat60k": 30,
    "objects": 5,
    "mat": 5,
    "deflated_mat": 60,
    "mat73": 6,
    "structs": 30,
    "deflated_structs": 30,
    "cadena2019": 30,
    "nwb": 4,
    "nwb_movies": 4,
    "nwb_movies_structure": 4,
    "studies_structure": 10,
    "cache": 4,
    "cache_structure": 4,
    "movies": 30,
    "cells": 40,
    "spikes": 40,
    "spikes_v73": 6,
    "yaml": 6,
    "checkpoint": 20,
    "pickles": 5,
    "legacy": 20,
    "npz": 20,
    "minimodel": 30,
    "model": 60,
    "studies": 5,
    "checkpoint_folder": 1,
    "ensemble": 30,
    "weights": 40,
    "decoder": 40,
    "dina": 30,
    "vist": 30,
    "backbone": 5,
    "arguments": 130,
    "functions": 60,
    "inspections": 60,
    "parameters": 20,
    "csv_log": 60,
    "csv_log_structure": 60,
    "run_folder": 10,
    "run_folder_structure": 10,
    "parameters_json": 60,
    "parameters_json_structure": 60,
    "parameters_yaml": 30,
    "parameters_yaml_structure": 30,
    "registry": 40,
    "registry_structure": 40,
    "registry_zip": 40,
    "registry_zip_structure": 20,
    "publishing": 5,
    "publishing_structure": 5,
    "card": 5,
    "npy_structure": 20,
    "zips_structure": 20,
    "config_structure": 30,
    "nat60k_structure": 20,
    "cadena2019_structure": 20,
    "movies_structure": 20,
    "npz_structure": 20,
    "minimodel_structure": 20,
    "model_structure": 30,
    "ensemble_structure": 20,
    "decoder_structure": 20,
}
