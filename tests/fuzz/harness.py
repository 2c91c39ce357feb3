"""One changed file, tried: an error of ours that names it, or a right result; nothing else."""

import multiprocessing
import os
import resource
import warnings
from collections import Counter
from dataclasses import replace

from tests.fuzz.forked import in_place_of_new_processes
from tests.fuzz.mutations import change_all, draw_steps
from tests.fuzz.structures import KNOWN, change_structure

SECONDS = 20  # of the processor, for one file in a process of its own
WAITING_SECONDS = 600  # on a clock, for one that waits for ever


class Wrong(AssertionError):
    """What no file may lead to."""


def attempt(parser, target, data):
    """Read with other bytes in one file, and put back what was there.

    Returns
    -------
    str
        "right", or the name of the documented error.
    """
    intact = target.read_bytes()
    target.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = parser.read()
            right = parser.is_right(found)
    except (ValueError, OSError) as error:
        if not any(str(name) in str(error) for name in (parser.root, parser.root.name)):
            raise Wrong(f"{type(error).__name__} that names no file: {error}") from error
        return type(error).__name__
    except Exception as error:
        raise Wrong(f"{type(error).__name__}: {error}") from error
    finally:
        target.write_bytes(intact)
    if not right:
        raise Wrong("other data were read, without a word")
    return "right"


def attempt_in_child(parser, target, data):
    """Do so in a process of its own; one that dies or does not end is wrong."""
    intact = target.read_bytes()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_told, args=(sender, parser, target, data)
    )
    process.start()
    try:
        sender.close()
        if not receiver.poll(WAITING_SECONDS):
            raise Wrong(f"not read after {WAITING_SECONDS} s")
        try:
            outcome, is_wrong = receiver.recv()
        except EOFError:
            process.join()
            raise Wrong(f"the process ended with {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
        receiver.close()
        target.write_bytes(intact)
    if is_wrong:
        raise Wrong(outcome)
    return outcome


def _told(sender, parser, target, data):
    resource.setrlimit(resource.RLIMIT_CPU, (_used() + SECONDS, resource.RLIM_INFINITY))
    try:
        with in_place_of_new_processes():
            outcome = attempt(parser, target, data)
        sender.send((outcome, False))
    except Wrong as error:
        sender.send((str(error), True))
    sender.close()
    os._exit(0)


def _used():
    """Whole seconds of the processor that this process has used, a forked one its own alone."""
    told = resource.getrusage(resource.RUSAGE_SELF)
    return int(told.ru_utime + told.ru_stime) + 1


def changed(parser, which, steps):
    """Give one of a parser's files, and its bytes after some steps."""
    target = parser.targets[which % len(parser.targets)]
    donor = parser.targets[(which + 1) % len(parser.targets)].read_bytes()
    return target, change_all(target.read_bytes(), steps, donor)


def attempt_steps(parser, which, steps):
    """Change one of a parser's files by steps, and try it."""
    target, data = changed(parser, which, steps)
    run = attempt_in_child if parser.in_child else attempt
    return run(parser, target, data)


class Files:
    """A reader, its files changed step by step."""

    def __init__(self, parser):
        self.parser = parser

    def attempt(self, drawn):
        """Draw a file and changes to it, and read it."""
        return attempt_steps(self.parser, drawn.randrange(100), draw_steps(drawn))

    def keep(self, drawn, folder, name):
        """Write the file that was drawn into a folder."""
        which = drawn.randrange(100)
        target, data = changed(self.parser, which, draw_steps(drawn))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}{target.suffix}").write_bytes(data)


class Structures:
    """A reader, its files whole, but of other content: checksums in them tell nothing."""

    def __init__(self, parser):
        self.parser = replace(parser, is_right=parser.is_sane)
        self._targets = [target for target in parser.targets if target.suffix in KNOWN]

    def _draw(self, drawn):
        target = drawn.choice(self._targets)
        return target, change_structure(target.read_bytes(), target.suffix, drawn)

    def attempt(self, drawn):
        """Draw a file and what it says instead, and read it."""
        run = attempt_in_child if self.parser.in_child else attempt
        return run(self.parser, *self._draw(drawn))

    def keep(self, drawn, folder, name):
        """Write the file that was drawn into a folder."""
        target, data = self._draw(drawn)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}{target.suffix}").write_bytes(data)


class Counts(Counter):
    """How many inputs led to what."""

    def said(self):
        """Say it in one line."""
        total = sum(self.values())
        parts = ", ".join(f"{what} {n}" for what, n in self.most_common())
        return f"{total} tried: {parts}"
