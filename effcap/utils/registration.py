"""Registration with Keras of classes that are not imported yet.

`keras.saving.load_model` looks up the classes of a file in Keras's registry, which
`keras.saving.register_keras_serializable` fills when a class is defined. Classes that are imported
on first use are missing there. Until then a stand-in takes their place, which imports the class.
Nothing here imports Keras.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from effcap.utils.lazy import import_name

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

PACKAGE = "effcap"  # first part of the registered names, as in "effcap>Captioner"

_stand_ins: dict[str, type] = {}  # by registered name


def register_lazily(package: str, modules: Mapping[str, str]) -> None:
    """Registers stand-ins for classes with Keras, now or as soon as Keras is imported.

    Each class must be decorated with `keras.saving.register_keras_serializable("effcap")`, which
    replaces its stand-in once the class is imported.

    Args:
        package: name of the package.
        modules: module of each class, relative to the package, such as ".losses".
    """
    for name, module in modules.items():
        _stand_ins[f"{PACKAGE}>{name}"] = _stand_in(module, name, package)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    if sys.modules.get("keras") is not None:
        _register(importlib.import_module("keras"))  # waits if another thread is importing it


def _stand_in(module: str, name: str, package: str) -> type:
    """Returns a class that creates instances of the class it stands for."""

    class StandIn:
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return import_name(module, name, package)(*args, **kwargs)

        @classmethod
        def from_config(cls, config: dict) -> Any:
            return import_name(module, name, package).from_config(config)

    StandIn.__name__ = StandIn.__qualname__ = name
    return StandIn


def _register(keras: ModuleType) -> None:
    """Adds the stand-ins to the registry of Keras, except for classes that are registered."""
    saving = getattr(keras, "saving", None)  # absent while Keras is being imported
    if saving is not None:
        registry = saving.get_custom_objects()
        for registered_name, stand_in in _stand_ins.items():
            registry.setdefault(registered_name, stand_in)


class _KerasFinder:
    """Finds Keras as the finders after it in `sys.meta_path` do, with another loader.

    It stays in `sys.meta_path`: removing a finder while another thread imports a module could
    make that thread skip the next one.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "keras" or self not in sys.meta_path:
            return None
        finders = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 :]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    loader: Any = _KerasLoader(spec.loader)
                    spec.loader = loader
                return spec
        return None


class _KerasLoader:
    """Loads Keras with its own loader, then registers the stand-ins."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _register(module)


_finder = _KerasFinder()
