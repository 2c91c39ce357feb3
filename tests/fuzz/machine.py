"""What all sequences of calls have in common: no warnings, and how they are run."""

import warnings

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


class Machine(RuleBasedStateMachine):
    """Calls in any order, of which warnings do not count."""

    def __init__(self):
        super().__init__()
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        warnings.simplefilter("ignore")

    def teardown(self):
        self._caught.__exit__(None, None, None)


def run_sequences(machine, n, steps=12, **options):
    """Run that many sequences of calls."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=n,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[*HealthCheck],
            **options,
        ),
    )
