"""A graphics card that is not there: tensors that say they lie elsewhere and compute on the CPU.

What a real card would refuse is refused (tensors of both places in one operation), and what it
would do is counted: transfers, waiting for it, and the memory that tensors take there. Copies on a
stream of their own are made as late as may be: when somebody waits for them. Whoever does not wait
finds NaN.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

CARD = torch.device("privateuseone", 0)
_aten = torch.ops.aten
_COPIES = (_aten.copy_.default, _aten._to_copy.default)
# What brings a value to Python, and so waits.
_VALUES = (_aten._local_scalar_dense.default, _aten.equal.default, _aten.nonzero.default)


@dataclass
class Card:
    """What happened on it.

    Attributes:
        total: bytes of its memory.
        refused: how often there was no room.
        taken, peak: bytes that tensors take there now, and took at the worst moment.
        up, down: transfers to it and from it, in bytes, one after another.
        waits: what made the processor wait for all that it was given.
        stalls: how often it waited for what was given last, where it waits for a part of that.
        unrecorded: storages that a stream uses beside the one that they were taken on.
    """

    total: int = 1 << 40
    refused: int = 0
    taken: int = 0
    peak: int = 0
    up: list[int] = field(default_factory=list)
    down: list[int] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    stalls: int = 0
    unrecorded: set[int] = field(default_factory=set)
    pinned: set[int] = field(default_factory=set)
    lane: Lane | None = None  # that copies go to, beside the computing
    computed: int = 0  # operations there, so far
    _known: dict[int, int] = field(default_factory=dict)

    def hold(self, inner: torch.Tensor) -> None:
        """Count the memory of a tensor for as long as it lives."""
        storage = inner.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        if self.taken + storage.nbytes() > self.total:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory (stand-in)")
        self._known[key] = storage.nbytes()
        self.taken += storage.nbytes()
        self.peak = max(self.peak, self.taken)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.taken -= self._known.pop(key)


_card = Card()


class Lane(torch.Stream):
    """A stream that does what it was given when it has to."""

    def __new__(cls, device):
        return super().__new__(cls, stream_id=1, device_index=device.index, device_type=20)

    def __init__(self, device):
        self.begun: list = []
        self.seen = -1  # how many operations of the computing it has waited for

    def run(self, count: int | None = None) -> None:
        """Do what is still to be done of the first so many."""
        for at, work in enumerate(self.begun[:count]):
            self.begun[at] = None
            if work is not None:
                work()

    def wait_stream(self, other) -> None:
        if isinstance(other, Lane):
            count = len(other.begun)
            self.begun.append(lambda: other.run(count))
        else:
            self.seen = _card.computed

    def record_event(self):
        return _Event(self)


class _Event:
    """All that a stream was given so far; of the computing, by its operations."""

    def __init__(self, lane):
        self._lane = lane
        self._count = len(lane.begun) if lane else _card.computed

    def synchronize(self) -> None:
        now = len(self._lane.begun) if self._lane else _card.computed
        _card.stalls += now == self._count
        if self._lane:
            self._lane.run(self._count)


class _Computing(torch.Stream):
    """The stream that all else runs on, at once."""

    def __new__(cls):
        return super().__new__(cls, stream_id=0, device_index=0, device_type=20)

    def wait_stream(self, lane) -> None:
        lane.run()

    def record_event(self):
        return _Event(None)


_computing = _Computing()


class _Module(backend_registration._DummyBackendModule):
    """What `torch.cuda` is to cuda."""

    Stream = Lane

    def empty_cache(self):
        pass

    def current_stream(self, device):
        return _computing

    @contextmanager
    def stream(self, lane):
        _card.lane = lane
        yield
        _card.lane = None


class OnCard(torch.Tensor):
    """A tensor there; `inner` holds its numbers."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=CARD,
        )
        made.inner = inner
        return made

    # What makes a module take such tensors for its parameters.
    def __tensor_flatten__(self):
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(parts, context, size, stride):
        return OnCard(parts["inner"])

    def __repr__(self):
        return f"OnCard({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    if func not in _COPIES and torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), torch._C.DispatchKey.CompositeImplicitAutograd
    ):
        with _Mode():
            made = func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
    if func is _aten.record_stream.default:
        _card.unrecorded.discard(args[0].inner.untyped_storage()._cdata)
        return None
    tensors = [*_tensors(args), *_tensors(kwargs.values())]
    there = [t for t in tensors if isinstance(t, OnCard)]
    wanted = kwargs.get("device")
    on_card = bool(there)
    if func in _COPIES:
        on_card = _transfer(func, args, kwargs)
    elif wanted is not None:
        on_card = torch.device(wanted).type == CARD.type
    elif there and any(t.dim() and not isinstance(t, OnCard) for t in tensors):
        raise RuntimeError(f"expected all tensors on the same device: {func}")
    if there and func in _VALUES:
        _card.waits.append(str(func))
    if wanted is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    pinned = kwargs.pop("pin_memory", False)
    if func in _COPIES and _card.lane is not None:
        return _later(func, args, kwargs, on_card)
    _card.computed += on_card
    made = func(*_mapped(_inner, args), **{name: _inner(value) for name, value in kwargs.items()})
    if pinned:
        _card.pinned.add(made.untyped_storage()._cdata)
    return _outer(func, args, kwargs, made, on_card)


def _later(func, args, kwargs, on_card):
    """A copy that its lane makes when it has to."""
    lane = _card.lane
    source = args[1] if func is _aten.copy_.default else args[0]
    here = args[0] if not on_card else source
    assert here.untyped_storage()._cdata in _card.pinned, "copied from or to memory that may move"
    if func is _aten.copy_.default:
        made = args[0]
        assert lane.seen == _card.computed, "copied before it was computed"
    else:
        made = OnCard(torch.full_like(source, torch.nan if source.is_floating_point() else 77))
        _card.hold(made.inner)
    _card.unrecorded.add((made if on_card else source).inner.untyped_storage()._cdata)
    target, numbers = _inner(made), _inner(source)
    if not on_card:
        target.fill_(torch.nan)
    lane.begun.append(lambda: target.copy_(numbers))
    return made


def _tensors(values) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _mapped(change, value):
    """What `change` makes of it, or of each that is in it."""
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(change, one) for one in value)
    return change(value)


def _inner(value):
    return value.inner if isinstance(value, OnCard) else value


def _outer(func, args, kwargs, made, on_card):
    """What was made, as it looks from outside; what was written is what was given."""
    names = [a.name for a in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    written = [
        given[a.name]
        for a in func._schema.arguments
        if a.alias_info is not None and a.alias_info.is_write and a.name in given
    ]
    if written and func._schema.returns:
        return written[0] if len(written) == 1 else tuple(written)

    def wrap(value):
        if not isinstance(value, torch.Tensor) or not on_card:
            return value
        _card.hold(value)
        if value.is_inference():
            return OnCard(value)
        with torch.inference_mode(False):  # a view of an ordinary tensor is one in any mode
            return OnCard(value)

    return _mapped(wrap, made)


def _transfer(func, args, kwargs) -> bool:
    """Count a copy; whether what is made lies on the card."""
    if func is _aten.copy_.default:
        target, source = args[:2]
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        to, size = isinstance(target, OnCard), target.nbytes
    else:
        (source,) = args
        non_blocking = kwargs.get("non_blocking", False)
        device = kwargs.get("device")
        to = (
            isinstance(source, OnCard) if device is None else torch.device(device).type == CARD.type
        )
        size = source.nbytes
    out = isinstance(source, OnCard)
    if to != out:
        (_card.up if to else _card.down).append(size)
        if not non_blocking:
            _card.waits.append(f"{'up' if to else 'down'} {size}")
    return to


@cache
def _register() -> None:
    """Once in a process."""
    backend_registration._setup_privateuseone_for_python_backend(backend_module=_Module())


@contextmanager
def card(total: int = 1 << 40) -> Iterator[Card]:
    """As long as this lasts, `CARD` is one with so many bytes of memory. It is none of CUDA's: what
    is asked of `torch.cuda` alone is not seen here.
    """
    global _card

    _card = made = Card(total)
    _register()
    with _Mode():
        yield made
    assert not made.unrecorded, "memory that might be taken by others while it is copied"
