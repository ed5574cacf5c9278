"""Where the bodies of one runner run besides its threads and its loop, by name.

Decides which number each has. Knows executors only where a program gives some: to import them costs time.
"""

from __future__ import annotations

from . import imported
from .errors import RunnerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._cloaca import Engine
    from .bodies.far import Polls
    from .bodies.future import Named, Place
    from .job import Job
    from .threads import Threads
    from .types import Executors
    from .worker import Worker

BUILT_IN = {"thread": 0, "loop": 1}
"""The numbers of the places that every runner has, as the engine knows them."""


class Places:
    """The executors of one runner.

    Attributes:
        numbers: those of all places to run, by name.
        names: the other way round, of those that not every runner has.
    """

    def __init__(self, executors: Executors | None) -> None:
        self._named: list[Named] = []
        if executors is not None:
            from .bodies.future import made

            self._named = made(executors)
        names = (named.name for named in self._named)
        self.numbers = {**BUILT_IN, **{name: len(BUILT_IN) + at for at, name in enumerate(names)}}
        self.names = {number: name for name, number in self.numbers.items() if name not in BUILT_IN}
        self._places: list[Place] = []

    def permits(self, otherwise: int) -> list[int]:
        """How many bodies each runs at once."""
        return [named.permits(otherwise) for named in self._named]

    def open(self, engine: Engine, worker: Worker, threads: Threads, deaths_max: int) -> None:
        """Begins to take attempts for each."""
        for named in self._named:
            from .bodies.future import Place

            place = Place(named, self.numbers[named.name], engine, worker, threads, deaths_max)
            self._places.append(place)
            place.open()

    def polls(self, number: int) -> Polls | None:
        """The polls in the executor of that number; `None` in a place that every runner has."""
        at = number - len(BUILT_IN)
        return self._places[at].polls if at >= 0 else None

    def stop_poll(self, place: int, serial: int) -> None:
        """That poll of the trigger in that place is over its time."""
        for executor in self._places:
            executor.polls.stop(place, serial)

    def running(self) -> list[tuple[str, Job]]:
        """What runs there now."""
        return [each for place in self._places for each in place.running()]

    def close(self, *, wait: bool = True) -> None:
        """Stops what runs there, as far as that can be stopped. Twice is fine."""
        for place in self._places:
            place.stop()
        if wait:
            for place in self._places:
                place.join()
        if not self._places:
            self.let_go()

    def let_go(self) -> None:
        """Holds the executors no longer, where none of them was begun with."""
        for named in self._named:
            named.let_go(wait=False)


def refuse_in_pool() -> None:
    """Refuses a runner in a process that was only started to make calls for one.

    Raises:
        RunnerError: this is such a process.
    """
    if _is_in_pool():
        raise RunnerError(
            "a DefaultRunner is made in the process of a pool, which imports the program to find its"
            ' functions, and would be one more runner; make it under `if __name__ == "__main__":` or in a'
            " function that only the program calls"
        )


def _is_in_pool() -> bool:
    asked = ("cloaca.bodies.child", "is_here"), ("cloaca.bodies.remote", "is_inside")
    if any(is_so() for each in asked if (is_so := imported.found(*each)) is not None):
        return True
    current = imported.found("multiprocessing.process", "current_process")
    # What the standard library's own processes say while they import the program.
    return current is not None and bool(getattr(current(), "_inheriting", False))
