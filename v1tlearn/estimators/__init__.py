"""The models as scikit-learn estimators."""

from v1tlearn.estimators.cnn import CNNRegressor
from v1tlearn.estimators.dina import DINAAligner
from v1tlearn.estimators.encoding import EncodingRegressor
from v1tlearn.estimators.ensemble import EnsembleRegressor
from v1tlearn.estimators.full_model import FullModelRegressor
from v1tlearn.estimators.hub import fetch_model, publish_model
from v1tlearn.estimators.linear import LNRegressor
from v1tlearn.estimators.loading import load
from v1tlearn.estimators.minimodel import MinimodelRegressor
from v1tlearn.estimators.movie_cnn import MovieCNNRegressor
from v1tlearn.estimators.movie_ln import MovieLNRegressor
from v1tlearn.estimators.pretrained_vit import PretrainedViTRegressor
from v1tlearn.estimators.v1t import V1TRegressor, ViTRegressor
from v1tlearn.estimators.vist import ViSTRegressor

__all__ = [
    "CNNRegressor",
    "DINAAligner",
    "EncodingRegressor",
    "EnsembleRegressor",
    "FullModelRegressor",
    "LNRegressor",
    "MinimodelRegressor",
    "MovieCNNRegressor",
    "MovieLNRegressor",
    "PretrainedViTRegressor",
    "V1TRegressor",
    "ViSTRegressor",
    "ViTRegressor",
    "fetch_model",
    "load",
    "publish_model",
]
