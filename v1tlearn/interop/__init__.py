"""Models of the published implementations as estimators."""

from v1tlearn.interop.dina import load_dina
from v1tlearn.interop.minimodel import load_minimodel
from v1tlearn.interop.sensorium import load_sensorium
from v1tlearn.interop.v1t import load_v1t
from v1tlearn.interop.vist import load_vist

__all__ = ["load_dina", "load_minimodel", "load_sensorium", "load_v1t", "load_vist"]
