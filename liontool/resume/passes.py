"""Pass after pass over the data, with a position that can be saved between any two batches.

The order of a restart is that of the run that was never stopped:

    generators as the pass began -> the loader's iterator, moved on -> generators as they were saved

The first because samplers without a state draw their order again, the last because making an
iterator draws a seed.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch.utils.data import DataLoader

from liontool.errors import ResumeError
from liontool.resume.difference import difference
from liontool.resume.generators import Generators
from liontool.resume.sample_seeded import seeded_parts
from liontool.resume.workers import kill_workers, killed_on_error, shut_down

_LAZY = (
    "the batch sampler draws from a global generator while it goes on, and so may the body in "
    "between; give it a generator of its own, or state_dict and load_state_dict"
)
_FINISHED = "_iterator_finished"  # torchdata's word for a state at the end of a pass


class Passes:
    """The batches of a run; none is drawn before it is asked for.

    Args:
        loader: A StatefulDataLoader, or None for a counter that never ends.
        starting_workers: What to be in while the loader starts its workers.

    Attributes:
        epoch: Finished passes.
        drawn: Batches drawn in this pass.
        between: Whether the last pass has ended, or none was begun, and the next has not.
        reasons: Why the order of the data may not be the one that it would have been.
    """

    def __init__(
        self,
        loader: DataLoader[Any] | None,
        starting_workers: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.epoch = 0
        self.drawn = 0
        self.between = True
        self.reasons: list[str] = []
        self._owner = os.getpid()
        self._loader = loader
        self._starting_workers = starting_workers
        self._generators = Generators(loader)
        self._as_pass_began: dict[str, Any] | None = None
        self._iterator: Any = None
        self._loaded: Mapping[str, Any] | None = None
        self._first_after_load: Mapping[str, Any] | None = None
        self._say_no_place: Callable[[str], None] | None = None

    def begin(self) -> bool:
        """Begin a pass, or the rest of one after a restart, unless one is under way."""
        if self._iterator is not None and not self.between:
            return False
        loaded, self._loaded = self._loaded, None
        if self._loader is not None:
            for part in seeded_parts(self._loader.dataset):
                part.pass_index = self.epoch
        if loaded is None or self.between:
            self._begin_new(loaded)
        else:
            self._begin_again(loaded)
        return True

    @property
    def is_begun(self) -> bool:
        """Whether a batch was asked for in this process."""
        return self._iterator is not None

    def draw(self) -> Any:
        """The next batch.

        Raises:
            StopIteration: The pass has ended; the next call begins another one.
            ResumeError: There was no batch in it at all.
        """
        self.begin()
        try:
            batch = next(self._iterator)
        except StopIteration:
            if self.drawn == 0:
                return self._draw_again()
            self.epoch, self.drawn, self.between = self.epoch + 1, 0, True
            raise
        self.drawn += 1
        self._first_after_load = None
        return batch

    def state(self) -> dict[str, Any]:
        """Where the run stands: "loader", the generators, and "run" with the counters."""
        if self._loaded is not None:
            position = dict(self._loaded)  # nothing was drawn since, and nothing is restored yet
        else:
            position = {
                "loader": self._loader_state(),
                "generators": self._generators.state(),
                "pass_generators": None if self.between else self._as_pass_began,
            }
        run = {"epoch": self.epoch, "drawn": self.drawn, "between": self.between}
        return {**position, "run": run}

    def load(
        self, state: Mapping[str, Any], say_no_place: Callable[[str], None] | None = None
    ) -> list[str]:
        """Go on from a state; what it says is used when the next batch is asked for.

        Args:
            state: As `state` gave it.
            say_no_place: Told that the loader, which is another one now, does not take its place,
                so that the pass begins again; None where that is an error.

        Returns:
            Generators that only one of the two has.
        """
        run = state["run"]
        self.epoch, self.drawn, self.between = run["epoch"], run["drawn"], run["between"]
        self._loaded = {
            name: state.get(name) for name in ("loader", "generators", "pass_generators")
        }
        self._say_no_place = say_no_place
        return self._generators.unknown(state["generators"])

    def end(self) -> None:
        """Let the loader's workers go; nothing can be drawn any more."""
        if os.getpid() != self._owner:
            return  # a fork of the script ends: they are not its own
        shut_down(self._iterator)
        if getattr(self._iterator, "_workers", None):
            self._loader._iterator = None  # type: ignore[union-attr]  # its workers are gone

    def abandon(self) -> None:
        """Kill the loader's workers: the process dies in the next moment."""
        kill_workers(self._iterator)

    def _draw_again(self) -> Any:
        """A stream that was loaded at its end may need one empty pass to know that it is there."""
        loaded, self._first_after_load = self._first_after_load, None
        if loaded is None:
            raise ResumeError(
                "the loader gave no batch in a whole pass, so the run would never end; "
                "look at its data set, batch_size and drop_last"
            )
        self._generators.load(loaded["generators"])
        self._begin_new(None)
        return self.draw()

    def _begin_new(self, loaded: Mapping[str, Any] | None) -> None:
        if loaded is not None:
            self._end_loaded_pass(loaded["loader"])
            self._generators.load(loaded["generators"])
            self._first_after_load = loaded
        self._as_pass_began = self._generators.state()
        self._iterator = self._made()
        self.drawn, self.between = 0, False

    def _end_loaded_pass(self, state: Mapping[str, Any] | None) -> None:
        """Bring what outlives a pass to the end of the last one: data set, sampler, workers.

        A loader that is given a finished state makes two iterators at once, and the second would
        begin before the generators are restored; so it is told that the pass has not ended.
        """
        if state is not None and self._loader is not None and _outlives_pass(self._loader):
            ended = self._made_at({**state, _FINISHED: False})
            if ended is not None and not self._loader.persistent_workers:
                shut_down(ended)

    def _begin_again(self, loaded: Mapping[str, Any]) -> None:
        self._as_pass_began = dict(loaded["pass_generators"])
        self._generators.load(self._as_pass_began)
        self._iterator = self._made_at(loaded["loader"])
        if self._iterator is None:
            self._begin_new({**loaded, "loader": None})
        else:
            if _move_on(self._iterator, self._generators):
                self.reasons.append(_LAZY)
            self._generators.load(loaded["generators"])

    def _made_at(self, state: Mapping[str, Any] | None) -> Any:
        """An iterator that goes on where a state was; None if another loader takes no such state.

        Raises:
            ResumeError: The same loader does not take it.
        """
        if self._loader is None:
            return self._made()
        try:
            if state is None:
                raise ValueError("there is none")
            self._loader.load_state_dict(dict(state))  # type: ignore[attr-defined]
            return self._made()
        except Exception as error:
            self._loader.load_state_dict({})  # type: ignore[attr-defined]
            self._loader.next_iter_state = None
            said = f"{type(error).__name__}: {error}".rstrip(": ")
            line = f"the loader does not take its place from the checkpoint ({said:.300})"
            if self._say_no_place is None:
                raise ResumeError(f"{line}; build it as it was when it was saved") from error
            self._say_no_place(f"{line}; the pass begins again")
            return None

    def _made(self) -> Iterator[Any]:
        if self._loader is None:
            return itertools.count(self.drawn)
        with self._starting_workers(), killed_on_error():
            return iter(self._loader)

    def _loader_state(self) -> Any:
        """Not asked of the loader, which would make an iterator where there is none."""
        if self._loader is None or self._iterator is None:
            return None
        return self._iterator.state_dict()


def _outlives_pass(loader: Any) -> bool:
    """Whether a loader keeps more from pass to pass than its generators."""
    parts = (loader.dataset, loader.sampler, loader.batch_sampler)
    return loader.persistent_workers or any(hasattr(part, "load_state_dict") for part in parts)


def _move_on(iterator: Any, generators: Generators) -> bool:
    """Draw the indexes that were used now: torchdata would only do it with the next batch.

    Returns:
        Whether generators of the whole program were drawn from after the first of them. What the
        body draws from these in between is not drawn again.
    """
    pending = isinstance(getattr(iterator, "_sampler_iter", None), itertools.islice)
    if not pending or getattr(iterator, "_workers", None):
        return False
    indexes = iter(iterator._index_sampler)
    after_first: dict[str, Any] = {}
    for _ in zip(range(iterator._sampler_iter_yielded), indexes, strict=False):
        after_first = after_first or generators.common()
    iterator._sampler_iter = indexes
    return bool(after_first) and difference(after_first, generators.common()) is not None
