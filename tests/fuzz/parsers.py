"""All that is fuzzed: readers of recordings, readers of models, and calls."""

from tests.fuzz import model_parsers as models
from tests.fuzz import recording_parsers as recordings
from tests.fuzz.arguments import Arguments
from tests.fuzz.parameters import Parameters

PARSERS = {
    make.__name__: make
    for make in (
        recordings.npy,
        recordings.zips,
        recordings.config,
        recordings.netcdf,
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
    )
}

CALLS = {"arguments": Arguments, "parameters": Parameters}

# How many inputs of each in a thousand, about: cheap ones take the bulk.
SHARES = {
    "npy": 20,
    "zips": 110,
    "config": 110,
    "netcdf": 3,
    "trials": 3,
    "nat60k": 30,
    "objects": 5,
    "mat": 5,
    "deflated_mat": 60,
    "mat73": 3,
    "structs": 30,
    "deflated_structs": 30,
    "cadena2019": 30,
    "nwb": 3,
    "movies": 30,
    "cells": 40,
    "spikes": 40,
    "spikes_v73": 3,
    "yaml": 6,
    "checkpoint": 20,
    "pickles": 5,
    "legacy": 20,
    "npz": 20,
    "minimodel": 30,
    "model": 60,
    "studies": 2,
    "checkpoint_folder": 1,
    "ensemble": 30,
    "weights": 40,
    "decoder": 40,
    "dina": 30,
    "vist": 30,
    "backbone": 5,
    "arguments": 130,
    "parameters": 20,
}
