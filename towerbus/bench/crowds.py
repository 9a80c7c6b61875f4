"""The processes with the clients: each has a crowd of its own and is told what to do through a pipe."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Self

from towerbus.bench.arrivals import LESS
from towerbus.bench.board import Board
from towerbus.bench.crowd import Crowd
from towerbus.bench.ledger import REFUSED
from towerbus.errors import TowerbusError

AFTERMATH = 0.3
"""Seconds after the last event in which nothing more may come."""
HASTE = 2.0
"""Seconds of patience when something was untrue already."""
ENDED = "a process with clients has ended: is there enough memory?"
_LOOK = 0.05
_TOLD = b"."


class Crowds:
    """All clients, in processes of their own; a context manager.

    Args:
        board: What is shared with them.
        make: Makes the crowd of a process, by its number.
        processes: How many.
        patience: Seconds without any progress after which something is given up.
    """

    def __init__(self, board: Board, make: Callable[[int], Crowd], processes: int, patience: float) -> None:
        self._board = board
        self._patience = patience
        fork = multiprocessing.get_context("fork")
        self._told, self._tell = os.pipe()
        self._pipes: list[Connection] = []
        self._children = []
        for place in range(processes):
            ours, theirs = fork.Pipe()
            self._pipes.append(ours)
            # A child has copies of all that is ours: while it holds them it would not see that we are gone.
            child = fork.Process(
                target=_run, args=(place, make, theirs, self._pipes, self._tell, board, patience), daemon=True
            )
            child.start()
            theirs.close()
            self._children.append(child)

    @property
    def pids(self) -> list[int]:
        """The processes' ids."""
        return [child.pid for child in self._children if child.pid is not None]

    def tell(self, *command: Any) -> None:
        """Tell all to do something that has no answer.

        Raises:
            TowerbusError: One of them has failed.
        """
        for pipe in self._pipes:
            try:
                pipe.send(command)
            except OSError:
                raise _failure(pipe) from None

    def ask(self, *command: Any, progress: Callable[[], None] = lambda: None) -> list[Any]:
        """Have all do something, and wait until they have.

        Args:
            command: What.
            progress: Called now and then while they are at it.

        Returns:
            Their answers.

        Raises:
            TowerbusError: One of them can't.
        """
        self.tell(*command)
        answers = []
        for pipe in self._pipes:
            while not pipe.poll(_LOOK):
                progress()
            try:
                kind, value = pipe.recv()
            except (EOFError, OSError):
                raise TowerbusError(ENDED) from None
            if kind == "failed":
                raise TowerbusError(value)
            answers.append(value)
        progress()
        return answers

    def await_targets(self, processes: int) -> bool:
        """Wait until so many processes have counted as many deliveries as the board says.

        Returns:
            Whether they have: not so where there was no progress for too long.
        """
        waited, last, since = 0, -1.0, time.monotonic()
        while waited < processes:
            if select.select([self._told], [], [], _LOOK)[0]:
                waited += len(os.read(self._told, processes - waited))
                continue
            if (now := sum(self._board.delivered)) != last:
                last, since = now, time.monotonic()
            patience = min(HASTE, self._patience) if any(self._board.faults) else self._patience
            if time.monotonic() - since > patience:
                return False
            self.look_after()
        return True

    def look_after(self) -> None:
        """See whether one of them has something to say that was not asked for: it can only be a failure.

        Raises:
            TowerbusError: It is one.
        """
        for pipe in self._pipes:
            if pipe.poll():
                raise _failure(pipe)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.kill()
            child.join()
        for pipe in self._pipes:
            pipe.close()
        os.close(self._told)
        os.close(self._tell)


def _failure(pipe: Connection) -> TowerbusError:
    """Why a process with clients has ended."""
    with contextlib.suppress(EOFError, OSError):
        if pipe.poll():
            return TowerbusError(pipe.recv()[1])
    return TowerbusError(ENDED)


def _run(
    place: int,
    make: Callable[[int], Crowd],
    pipe: Connection,
    others: Sequence[Connection],
    tell: int,
    board: Board,
    patience: float,
) -> None:
    """Be a process with clients, until whoever began it is gone."""
    # What a terminal or timeout(1) sends to the whole group is for the one that began us: it has an account to ask for.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for each in others:
        each.close()
    with contextlib.suppress(OSError):
        _serve_until_told(place, make, pipe, tell, board, patience)


def _serve_until_told(
    place: int, make: Callable[[int], Crowd], pipe: Connection, tell: int, board: Board, patience: float
) -> None:
    try:
        crowd = make(place)
        crowd.tell = lambda: _say(tell)
        # What there is now stays: to walk through it again and again would hold the loop.
        gc.freeze()
        _serve(crowd, pipe, board, place, patience)
    except EOFError:
        return
    except TowerbusError as error:
        pipe.send(("failed", str(error)))
    except Exception:  # noqa: BLE001 - whoever waits must hear of it
        pipe.send(("failed", f"the bench itself failed: {traceback.format_exc()}"))


def _say(tell: int) -> None:
    os.write(tell, _TOLD)


def _serve(crowd: Crowd, pipe: Connection, board: Board, place: int, patience: float) -> None:
    """Do what comes through the pipe, and read what the clients get meanwhile."""
    commands = select.poll()
    commands.register(pipe, select.POLLIN)
    while True:
        crowd.turn()
        if not commands.poll(0):
            continue
        match pipe.recv():
            case ("connect", int(count)):
                crowd.connect(count)
                pipe.send(("done", _settle(crowd, board, place, patience)))
            case ("subscribe", int(number)):
                crowd.subscribe(number)
                pipe.send(("done", _settle(crowd, board, place, patience)))
            case ("measure", int(number)):
                crowd.measure(number)
                pipe.send(("done", (time.process_time(), time.monotonic())))
            case ("walk", bool(on)):
                crowd.walk(on=on)
            case ("cut",):
                crowd.cut()
            case ("finish", int(end), bool(stopped)):
                pipe.send(("done", _finish(crowd, board, end, min(HASTE, patience) if stopped else patience)))


def _settle(crowd: Crowd, board: Board, place: int, patience: float) -> float:
    """Serve until all have arrived; returns the seconds that it took."""
    start = since = time.monotonic()
    last = -1
    while left := crowd.arriving:
        crowd.turn()
        board.arriving[place] = left
        if left != last:
            last, since = left, time.monotonic()
        elif time.monotonic() - since > (min(HASTE, patience) if crowd.faults.total else patience):
            refused = LESS * bool(crowd.faults.counts[REFUSED])
            said = f"; {crowd.faults.examples[0]}{refused}" if crowd.faults.examples else ""
            raise TowerbusError(
                f"{left} clients are still waiting for the server after {time.monotonic() - since:.1f} s without any "
                f"progress{said}"
            )
    board.arriving[place] = 0
    return time.monotonic() - start


def _finish(crowd: Crowd, board: Board, end: int, patience: float) -> dict[str, Any]:
    """Serve until all have everything, or nothing more comes, and for a moment more; then close the account.

    `cpu` is what the process has needed until the last progress, and `at` is when that was: waiting is no work.
    """
    crowd.hurry()
    last: Sequence[int] = ()
    since, cpu = time.monotonic(), time.process_time()
    while left := crowd.behind(end):
        _serve_for(crowd, _LOOK)
        state = (left, crowd.delivered, crowd.arriving)
        if state != last:
            last, since, cpu = state, time.monotonic(), time.process_time()
        elif time.monotonic() - since > (min(HASTE, patience) if crowd.faults.total or board.hurried[0] else patience):
            break
    _serve_for(crowd, AFTERMATH)
    return crowd.close(end) | {"cpu": cpu, "at": since}


def _serve_for(crowd: Crowd, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        crowd.turn(_LOOK)
