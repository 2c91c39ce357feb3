"""From responses back to images: linear decoders, reconstruction, retrieval, and how well it goes.

What goes on in the space of an alignment itself is in `v1tlearn.DINAAligner`.
"""

from v1tlearn.decoding.prior import ImagePrior, natural_image_prior
from v1tlearn.decoding.probe import LinearProbe
from v1tlearn.decoding.reconstruction import reconstruct_images
from v1tlearn.decoding.retrieval import reconstruct_by_retrieval
from v1tlearn.decoding.ridge import RidgeDecoder
from v1tlearn.decoding.table import decoding_table

__all__ = [
    "ImagePrior",
    "LinearProbe",
    "RidgeDecoder",
    "decoding_table",
    "natural_image_prior",
    "reconstruct_by_retrieval",
    "reconstruct_images",
]
