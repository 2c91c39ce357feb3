"""What fitted models tell of themselves, read from what they know and from their training."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError

Record = dict[str, float]


class FittedAttributes:
    """Attributes that are there once a model is fitted; described with the models themselves."""

    def __sklearn_is_fitted__(self) -> bool:
        return "fitted_" in self.__dict__

    def __getattr__(self, name: str) -> Any:
        """Say of what only a fitted model has that this one is none."""
        if name.endswith("_") and not name.startswith("_") and "fitted_" not in self.__dict__:
            raise NotFittedError(f"this {type(self).__name__} is not fitted: it has no {name}.")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def mice_(self) -> list[str]:
        """The mice in the order of their names; of published models in that of their files."""
        return list(self.fitted_.mice)

    @property
    def n_neurons_(self) -> dict[str, int]:
        """Neurons per mouse."""
        return {name: mouse.n_neurons for name, mouse in self.fitted_.mice.items()}

    @property
    def neurons_(self) -> dict[str, dict[str, np.ndarray]]:
        """Per mouse the labels of its neurons."""
        return {name: mouse.labels for name, mouse in self.fitted_.mice.items()}

    @property
    def positions_(self) -> dict[str, np.ndarray | None]:
        """Per mouse the cortical positions of its neurons."""
        return {name: mouse.position for name, mouse in self.fitted_.mice.items()}

    @property
    def statistics_(self) -> dict[str, dict[str, Any]]:
        """Per mouse what inputs and responses are scaled with."""
        return {name: mouse.statistics for name, mouse in self.fitted_.mice.items()}

    @property
    def behavior_names_(self) -> dict[str, list[str] | None]:
        """Behaviour columns per mouse at `fit`."""
        return {name: mouse.behavior_names for name, mouse in self.fitted_.mice.items()}

    @property
    def used_columns_(self) -> dict[str, list[str]]:
        """Those of them that the model needs."""
        return {name: mouse.used_columns for name, mouse in self.fitted_.mice.items()}

    @property
    def image_shape_(self) -> tuple[int, int, int]:
        """Channels, height and width of the stimuli at `fit`."""
        return self.fitted_.image_shape

    @property
    def behavior_mode_(self) -> str:
        """How behaviour enters; what "auto" became."""
        return self.fitted_.behavior_mode

    @property
    def core_columns_(self) -> list[str]:
        """Behaviour that enters the core."""
        return list(self.fitted_.core_columns)

    @property
    def columns_assumed_(self) -> bool:
        """Whether the behaviour columns were never told."""
        return self.fitted_.columns_assumed

    @property
    def core_frozen_(self) -> bool:
        """Whether the core stays as it is."""
        return self.module_.core.frozen

    @property
    def parameters_(self) -> dict[str, Any]:
        """The parameters that the model was built with."""
        return dict(self.fitted_.parameters)

    @property
    def seed_(self) -> int:
        """What was drawn from `random_state`."""
        return self.fitted_.seed

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Behaviour that enters the core; not there if none does."""
        if not self.fitted_.core_columns:
            raise AttributeError("no behaviour enters the core: there are no feature_names_in_.")
        return np.asarray(self.fitted_.core_columns, dtype=object)

    @property
    def history_(self) -> list[Record]:
        """One record per epoch: losses, penalty, validation correlation, lr, seconds."""
        return self.state_["history"]

    @property
    def best_epoch_(self) -> int:
        """The epoch whose weights were kept, from 1; 0 for the initial weights."""
        return self.state_["best_epoch"]

    @property
    def stop_reason_(self) -> str | None:
        """Why the training ended; None while it goes on."""
        return self.state_["stop_reason"]

    @property
    def n_iter_(self) -> int:
        """Number of epochs trained."""
        return len(self.history_)
