"""Unpickles the tensors of a TorchScript file, which `torch.jit.save` wrote, without its code.

Such a file is a zip archive like those of `torch.save`. Its pickle describes a tree of modules:
each is an object without arguments whose state is a dict of its tensors, submodules and other
attributes. The program is apart from it, in `code/`, and is not read.
"""

from __future__ import annotations

from typing import Any

from effcap.weights.torch_pickle import StateDictUnpickler, UnreadableTorchFile

PROGRAM = "__torch__"  # first part of the names of all classes that a TorchScript file defines
LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


class ScriptUnpickler(StateDictUnpickler):
    """Unpickles state dicts and trees of modules: modules become dicts of their attributes."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == PROGRAM:
            return _Module
        if module == "torch.jit._pickle" and name in LISTS:
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return self._typed
        if (module, name) == ("torch", "device"):
            return str
        return super().find_class(module, name)

    def _typed(self, value: Any, type_name: str) -> Any:
        return value


class _Module(dict):
    """Replaces a module; the class that the file names for it is not looked up."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise UnreadableTorchFile(
                "it holds a module whose state is not a dict of attributes, such as a quantized one"
            )
        self.update(state)
