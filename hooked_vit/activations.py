"""The activations of a cache by name, some of which are computed when they are read."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

__all__ = ["Activations", "Computed", "Recipe", "Versions", "as_in_the_run", "settings_of_the_run"]


class Versions:
    """Tensors that must not have been edited in place when something is computed from them.

    PyTorch counts the edits of a tensor, except through `.data` and of tensors made in inference mode.

    >>> tensor = torch.zeros(3)
    >>> versions = Versions([tensor])
    >>> versions.edited() is None, versions.edited() is tensor.add_(1)
    (True, False)
    >>> versions.edited() is tensor
    True
    """

    def __init__(self, tensors: Sequence[Tensor | None]):
        self.tensors = [tensor for tensor in tensors if tensor is not None]
        self._seen = list(map(_version, self.tensors))

    def edited(self) -> Tensor | None:
        """The first of the tensors that was edited, or moved, since."""
        now = map(_version, self.tensors)
        return next((t for t, a, b in zip(self.tensors, self._seen, now, strict=True) if a != b), None)


def _version(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


def settings_of_the_run(device: torch.device) -> dict[str, Any]:
    """Autocast and gradients as they are now, for `as_in_the_run`: kernels are chosen by both."""
    kind = device.type
    autocast = False, torch.float32
    if torch.amp.is_autocast_available(kind):
        autocast = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return {"device_type": kind, "autocast": autocast, "gradients": torch.is_grad_enabled()}


def as_in_the_run(compute: Callable[[], Any], settings: Mapping[str, Any]) -> Any:
    """Compute under the settings of the run."""
    kind, (enabled, dtype) = settings["device_type"], settings["autocast"]
    with torch.set_grad_enabled(settings["gradients"]):
        if not enabled and not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
            return compute()
        with torch.autocast(kind, dtype=dtype, enabled=enabled):
            return compute()


class Computed:
    """An activation that is computed by a function whenever it is read.

    Attributes:
        holds: The tensors that it keeps alive.
    """

    def __init__(self, compute: Callable[[], Tensor], holds: Sequence[Tensor] = ()):
        self._compute = compute
        self.holds = list(holds)

    def __call__(self) -> Tensor:
        return self._compute()


class Recipe(Computed):
    """How to compute an activation again from others, bit for bit as it was.

    Args:
        name: The hook point.
        compute: From `reads` and `weights` to the activation, elementwise or row by row, without other weights.
        reads: Activations, which a cache holds in any case.
        weights: Small weights, which are copied: later changes have no effect.
    """

    def __init__(
        self,
        name: str,
        compute: Callable[..., Tensor],
        reads: Sequence[Tensor | None],
        weights: Sequence[Tensor | None] = (),
    ):
        self.name, self._from = name, compute
        self._arguments: list[Tensor | None] = [None if tensor is None else tensor.detach() for tensor in reads]
        self._versions = Versions(self._arguments)
        self._arguments += [None if tensor is None else tensor.detach().clone() for tensor in weights]
        # no argument requires gradients
        self._settings = {**settings_of_the_run(self._versions.tensors[0].device), "gradients": False}
        super().__init__(self._again, [tensor for tensor in self._arguments if tensor is not None])

    def _again(self) -> Tensor:
        if self._versions.edited() is not None:
            raise ValueError(
                f"'{self.name}' is computed when it is read, and an activation that it is computed from has been "
                f"edited in place since the run: edit a copy, or have the cache hold it, with "
                f"`names_filter=['{self.name}', ...]` or `cache.hold_everything()`"
            )
        return as_in_the_run(lambda: self._from(*self._arguments), self._settings)


# a checker of types would compute an entry of a Mapping[str, Tensor] to check it
_Named = MutableMapping[str, Tensor] if TYPE_CHECKING else MutableMapping


class Activations(_Named):
    """A dict of activations in which some are computed when they are read.

    What was computed last is kept, so that reading one activation several times computes it once.

    Args:
        entries: Activations, or how to compute them, by name.
        further: Activations that can be read but are not listed, by name.
        run: What computes them, with `holds()` and `drop_computed()`.

    >>> entries = {"a": torch.ones(2), "b": Computed(lambda: torch.zeros(2))}
    >>> activations = Activations(entries)
    >>> list(activations), activations["b"]
    (['a', 'b'], tensor([0., 0.]))
    """

    def __init__(self, entries: Mapping[str, Any], further: Mapping[str, Any] | None = None, run: Any = None):
        self._entries: dict[str, Tensor | Computed] = dict(entries)
        self._further: dict[str, Tensor | Computed] = dict(further or {})
        self._run = run
        self._last: tuple[str, Tensor, tuple[int, int]] | None = None

    def __getitem__(self, name: str) -> Tensor:
        entry = self._entries[name] if name in self._entries else self._further[name]
        if isinstance(entry, Tensor):
            return entry
        if self._last is not None and self._last[0] == name and self._last[2] == _version(self._last[1]):
            return self._last[1]
        self._last = None  # freed before the next one is computed
        tensor = entry()
        if not tensor.is_inference():  # whether it is edited could not be seen
            self._last = (name, tensor, _version(tensor))
        return tensor

    def __setitem__(self, name: str, activation: Tensor | Computed) -> None:
        self._last = None
        self._entries[name] = activation

    def __delitem__(self, name: str) -> None:
        self._last = None
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # a copy or a file holds everything

    def copy(self) -> "Activations":
        """Another dict with the same entries."""
        return Activations(self._entries, self._further, self._run)

    def offers(self, name: str) -> bool:
        """Whether it can be read, listed or not."""
        return name in self._entries or name in self._further

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Activations":
        """With a function applied to every activation, when it is read if the activation is computed then."""

        def entry(value: Tensor | Computed) -> Any:
            if isinstance(value, Tensor):
                return change(value)
            return Computed(lambda: change(value()), value.holds)

        return Activations(
            {name: entry(value) for name, value in self._entries.items()},
            {name: entry(value) for name, value in self._further.items()},
            self._run,
        )

    def held(self) -> list[Tensor]:
        """The tensors that are kept alive: activations, and what others are computed from."""
        found = [] if self._last is None else [self._last[1]]
        for entry in (*self._entries.values(), *self._further.values()):
            found += [entry] if isinstance(entry, Tensor) else entry.holds
        return found if self._run is None else [*found, *self._run.holds()]

    def drop_computed(self) -> None:
        """Forget what was computed when it was read."""
        self._last = None
        if self._run is not None:
            self._run.drop_computed()
