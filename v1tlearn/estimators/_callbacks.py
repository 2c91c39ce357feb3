"""Callbacks of scikit-learn, from 1.9 on: `set_callbacks`, and what they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from v1tlearn.trials import Responses, Trials

if TYPE_CHECKING:
    _Support = object
else:
    try:
        from sklearn.callback import CallbackSupportMixin as _Support
    except ImportError:  # earlier versions
        _Support = object


def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let callbacks be torn down when a fit ends, however it does."""
    try:
        from sklearn.callback import with_callbacks as managed
    except ImportError:
        return method
    return managed(method)


class CallbackMixin(_Support):
    """Tells the callbacks of an estimator of its fit, and of the epochs of the training in it."""

    def _begin_task(self, trials: Trials, target: Responses, n_epochs: int) -> None:
        """Tell that a fit begins, of at most so many epochs; 0 where nothing is told of them."""
        if hasattr(self, "_init_callback_context"):
            task = self._init_callback_context(max_subtasks=n_epochs)
            task.call_on_fit_task_begin(estimator=self, X=trials, y=target)

    def _end_task(self, trials: Trials, target: Responses) -> None:
        task = self.__dict__.get("_callback_fit_ctx")
        if task is not None:
            now = {name: value for name, value in self.__dict__.items() if name.endswith("_")}
            task.call_on_fit_task_end(
                estimator=self, X=trials, y=target, reconstruction_attributes=now
            )

    def _telling_of_epochs(
        self, trials: Trials, target: Responses, fitted: Callable[[], dict[str, Any]]
    ) -> Callable[[bool], bool]:
        """Tell that the first epoch begins; give what is to be called when one is over.

        It is told whether another one is to follow, and answers whether a callback wants no more.
        `fitted` gives what an estimator is fitted with that stops there.
        """
        task = self.__dict__.get("_callback_fit_ctx")
        if task is None or not self.__dict__.get("_skl_callbacks"):
            return lambda more: False

        def begin() -> Any:
            context = task.subcontext(task_name="epoch")
            return context.call_on_fit_task_begin(estimator=self, X=trials, y=target)

        epoch = begin()

        def over(more: bool) -> bool:
            nonlocal epoch
            enough = epoch.call_on_fit_task_end(
                estimator=self, X=trials, y=target, reconstruction_attributes=fitted
            )
            if more and not enough:
                epoch = begin()
            return enough

        return over
