"""Ray Data: a cluster found or started, workers in it, and pieces spread over them as rows."""

# Ray is no dependency: it is imported here when it is used, and nothing is known of its types.

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..errors import ClusterError, OptionError, first_line
from .pieces import Piece
from .worker import Kit, Place, RowWorker

# Of a core that a worker holds: Ray Data was seen to hang where workers held every core whole.
_HELD = 0.9
_NEED_RAY = "--ray needs Ray: pip install 'animebg[ray]'"
_STORE = 200_000_000  # bytes of shared memory of a cluster of this machine's own, beside the kit

_log = logging.getLogger(__name__)

Event = tuple[int, str, str]  # see `worker.Tell`


@dataclass(frozen=True, slots=True)
class Fleet:
    """A cluster, and the workers that it is to have.

    Attributes:
        ray: the package.
        sent: a reference to the kit.
        ledger: an actor that counts how often each piece was begun.
        workers: at most so many.
        cards: graphics cards that each holds, 0 or 1.
        place: of each worker, when there are `workers` of them.
        cores: of all machines, and of the largest one.
    """

    ray: Any
    sent: Any
    ledger: Any
    workers: int
    cards: int
    place: Place
    cores: tuple[int, int]

    def spread(self, pieces: Sequence[Piece]) -> Iterator[list[Event]]:
        """Have pieces done: what is to be told of each, as they end, in any order.

        Raises:
            ClusterError: the cluster is gone, or can start no worker.
        """
        data: Any = importlib.import_module("ray.data")
        workers = min(self.workers, len(pieces))
        threads = max(1, min(self.cores[0] // workers, self.cores[1]))
        rows = data.from_items([asdict(piece) for piece in pieces], override_num_blocks=len(pieces))
        told = rows.map_batches(
            RowWorker,
            fn_constructor_args=([self.sent], self.ledger, replace(self.place, threads=threads)),
            batch_size=1,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(size=workers),
            num_cpus=_HELD,
            num_gpus=self.cards or None,
        )
        try:
            for table in told.iter_batches(batch_size=None, batch_format="pyarrow"):
                yield [
                    (row["item"], row["what"], row["text"].decode("utf-8", "surrogateescape"))
                    for row in table.to_pylist()
                ]
        except (self.ray.exceptions.RayError, RuntimeError, ConnectionError) as error:
            _log.debug("%s", error)
            # Ray's own text is long; what it began with comes last.
            text = str(error).strip() or type(error).__name__
            raise ClusterError(f"Ray gave up: {text.splitlines()[-1]}") from error
        for line in str(told.stats()).splitlines():
            if line.strip():
                _log.info("Ray Data: %s", line.strip())


def _ledger() -> type:
    """A class that is sent by value, so that its process need not load torch."""

    class Ledger:
        """Counts how often what was begun, over the deaths of workers."""

        def __init__(self) -> None:
            self.counts: dict[str, int] = {}

        def begun(self, name: str) -> int:
            """`name` is begun, for the so many-th time."""
            self.counts[name] = self.counts.get(name, 0) + 1
            return self.counts[name]

    return Ledger


@contextmanager
def fleet(address: str, kit: Kit, *, device: str, kit_bytes: int = 0) -> Generator[Fleet]:
    """A cluster's workers, each of which will have the kit.

    Args:
        address: "local" or "local:CORES" for a cluster of this machine's own, which ends with the
            block; else of a running one, as `ray.init` takes it.
        device: "auto" (cards if the cluster has any, else cores), "cpu", "cuda" or "mps".
        kit_bytes: about as large the kit is.

    Raises:
        ClusterError: Ray is not installed, or no cluster can be reached.
        OptionError: the cluster has no such device.
    """
    ray = _connected(address, kit_bytes)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = [int(node.get("CPU", 0)) for node in nodes]
        cards = sum(int(node.get("GPU", 0)) for node in nodes)
        local = address.partition(":")[0] == "local"
        if device == "auto":
            mps = local and torch.backends.mps.is_available()
            device = "cuda" if cards else "mps" if mps else "cpu"
        if device == "cuda" and not cards:
            raise OptionError(f"--device cuda: the cluster {address} has no graphics card")
        if not any(cores):
            raise ClusterError(f"the cluster {address} has no processor for a worker")
        workers = cards if device == "cuda" else 1 if device == "mps" else sum(cores)
        # A card has one worker. The memory of a machine is shared by those of its cores.
        sharers = max(cores) if device == "cpu" else 1
        place = Place(device, 1, sharers)
        yield Fleet(
            ray,
            ray.put(kit),
            # Beside this process: it is to live as long.
            ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=_here(ray))(
                _ledger()
            ).remote(),
            workers,
            int(device == "cuda"),
            place,
            (sum(cores), max(cores)),
        )
    finally:
        ray.shutdown()


def _here(ray: Any) -> Any:
    """On this machine, in Ray's words."""
    strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
    node = ray.get_runtime_context().get_node_id()
    return strategies.NodeAffinitySchedulingStrategy(node, soft=False)


def check_installed() -> None:
    """Refuse to begin without Ray.

    Raises:
        ClusterError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ClusterError(_NEED_RAY)


def _connected(address: str, kit_bytes: int) -> Any:
    """Ray, connected to a cluster; nothing it does is sent to anybody."""
    local = re.fullmatch(r"local(?::(\d+))?", address)
    # Read by Ray when it is imported, and by all that it starts.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if local:
        # No cluster of several machines: all ports are on the loopback address.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        ray: Any = importlib.import_module("ray")
        data: Any = importlib.import_module("ray.data")
    except ImportError as error:
        raise ClusterError(_NEED_RAY) from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"address": address}
    place = None if local else re.fullmatch(r"([^/]+):(\d+)", address)
    if local:
        options = {
            "address": "local",
            "num_cpus": int(local[1]) if local[1] else None,
            "include_dashboard": False,
            "object_store_memory": _STORE + 2 * kit_bytes,
        }
    if place:
        # Ray itself goes on trying for minutes.
        try:
            socket.create_connection((place[1].strip("[]"), int(place[2])), 10).close()
        except OSError as error:
            raise ClusterError(f"no Ray cluster at {address}: {error}") from error
    try:
        with _own_signals(), _silence():
            ray.init(**options, log_to_driver=False, configure_logging=False)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        # Ray's own `ray start` asks for a token wherever it finds one; its clients do not send it.
        hint = (
            "" if local or "RAY_AUTH_MODE" in os.environ else "; RAY_AUTH_MODE=token sends a token"
        )
        raise ClusterError(
            f"no Ray cluster at {address}: {first_line(error) or type(error).__name__}{hint}"
        ) from error
    context: Any = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return ray


@contextmanager
def _own_signals() -> Generator[None]:
    """Ray puts its own answer to SIGTERM in place of the caller's; this puts it back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _silence() -> Generator[None]:
    """Nothing on standard error, where Ray's own libraries say in which detail they will log."""
    if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison] - no console
        sys.stderr.flush()
    before = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
