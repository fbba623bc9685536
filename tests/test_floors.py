"""The structure of the source code: floors, circles, names and sizes of modules.

Every test reads all modules and lists every offender. Imports are counted wherever they are: in
functions, under TYPE_CHECKING, and as strings in the maps of lazily imported names.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("samplers", "effcap", "trainers", "tools")  # lowest first
MAPPED_FOLDERS = (*FLOORS, "hparams", "res")
# Levels inside effcap, lowest first.
LEVELS = (
    ("utils", "version", "precision"),
    ("fused_adam", "tokenizers", "images", "metrics", "losses", "layers", "display", "caption"),
    ("optimizers",),
    ("npair", "phrases", "output_vocabulary"),
    ("backbones",),
    ("encoders", "decoders"),
    ("generation_call",),
    ("generation", "token_mean", "weight_files", "config", "export", "attention"),
    ("preset_files",),
    ("presets",),
    ("caption_generator",),
    ("captioning",),
    ("engines",),
    ("exports",),
    ("weights",),
    ("adapters",),
    ("captioner",),
    ("conversion",),
)
MAX_LINES = 500
MAX_PARAMETERS = 7
# Packages whose modules are named after what they configure.
NAMED_AFTER_OTHERS = ("effcap.tools.cli", "effcap.trainers.options")
# Modules that do the same job in parallel packages.
PARALLEL = {"__init__", "base", "dataset", "photos", "playlists", "regions", "registry"}
BACKENDS = {"tensorflow", "jax", "torch"}


@cache
def modules() -> Mapping[str, Path]:
    """Returns the file of every module of the package by its dotted name."""
    files = {}
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if floor == "effcap" else ("effcap", *parts)
            files[".".join(parts).removesuffix(".__init__")] = path
    return files


@cache
def tree(module: str) -> ast.Module:
    """Returns the syntax tree of a module."""
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def package_of(module: str) -> str:
    """Returns the package that a module's relative imports start from."""
    is_package = modules()[module].name == "__init__.py"
    return module if is_package else module.rpartition(".")[0]


def absolute(name: str, module: str) -> str:
    """Returns the absolute form of a module name such as "..data.photos" used in `module`."""
    relative = name.lstrip(".")
    level = len(name) - len(relative)
    if level == 0:
        return name
    parents = package_of(module).split(".")
    parents = parents[: len(parents) - level + 1]
    return ".".join([*parents, relative]) if relative else ".".join(parents)


def imported_names(module: str) -> Iterator[str]:
    """Yields the absolute name of everything that a module imports, at any depth."""
    has_lazy_names = any(
        isinstance(node, ast.Call) and ast.unparse(node.func) == "lazy_names"
        for node in ast.walk(tree(module))
    )
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = absolute("." * node.level + (node.module or ""), module)
            for alias in node.names:
                submodule = f"{origin}.{alias.name}"
                yield submodule if submodule in modules() else origin
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.partition(":")[0]
            if name.startswith("effcap.") and name in modules():
                yield name
        elif isinstance(node, ast.Dict) and has_lazy_names:
            for value in node.values:
                if isinstance(value, ast.Constant) and str(value.value).startswith("."):
                    yield absolute(value.value, module)


@cache
def imports(module: str) -> frozenset[str]:
    """Returns the modules of the package that a module imports."""
    return frozenset(name for name in imported_names(module) if name in modules())


def floor_of(module: str) -> str:
    """Returns the floor of a module."""
    _, _, rest = module.partition(".")
    first = rest.partition(".")[0]
    return first if first in FLOORS else "effcap"


def circles(graph: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Returns the strongly connected components of more than one module (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    components = []

    def visit(module: str) -> None:
        index[module] = lowest[module] = len(index)
        stack.append(module)
        for target in graph[module]:
            if target not in index:
                visit(target)
                lowest[module] = min(lowest[module], lowest[target])
            elif target in stack:
                lowest[module] = min(lowest[module], index[target])
        if lowest[module] == index[module]:
            start = stack.index(module)
            components.append(sorted(stack[start:]))
            del stack[start:]

    for module in graph:
        if module not in index:
            visit(module)
    return [component for component in components if len(component) > 1]


def functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yields all functions and methods in a syntax tree."""
    for child in ast.walk(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child


def listed(offenders: list[str]) -> str:
    """Returns an assertion message with one offender per line."""
    return "\n" + "\n".join(sorted(offenders))


def test_imports_only_go_down_the_floors():
    upward = [
        f"{module} imports {name}"
        for module in modules()
        for name in imports(module)
        if FLOORS.index(floor_of(name)) > FLOORS.index(floor_of(module))
    ]
    assert not upward, listed(upward)


def test_imports_only_go_down_the_levels_inside_effcap():
    levels = {name: level for level, names in enumerate(LEVELS) for name in names}

    def level_of(module: str) -> int | None:
        parts = module.split(".")
        return levels.get(parts[1]) if len(parts) > 1 else None

    inside = [module for module in modules() if floor_of(module) == "effcap" and module != "effcap"]
    unknown = [module for module in inside if level_of(module) is None]
    assert not unknown, listed(unknown)
    upward = [
        f"{module} imports {name}"
        for module in inside
        for name in imports(module)
        if name == "effcap" or (floor_of(name) == "effcap" and level_of(name) > level_of(module))
    ]
    assert not upward, listed(upward)


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: imports(module) for module in modules()}
    assert not circles(graph), listed([" <-> ".join(circle) for circle in circles(graph)])


def test_modules_with_computed_names_are_imported_in_two_places_only():
    dynamic = [
        module
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__")
        and not (node.args and isinstance(node.args[0], ast.Constant))
    ]
    # The command line imports a command of its own package by name.
    assert set(dynamic) <= {"effcap.utils.lazy", "effcap.tools.cli.main"}, listed(dynamic)


def test_model_and_samplers_import_no_backend():
    # A loss must be added up over the devices of TensorFlow in a notebook, too; Keras has no
    # gradients of its own, no kernels of Adam and batch normalization, and no setting of the graph
    # rewriter. Exports are graphs of TensorFlow.
    exempt = (
        "effcap.weights",
        "effcap.exports",
        *("effcap.utils.replicas", "effcap.utils.gradients"),
        *("effcap.utils.adam_kernel", "effcap.utils.batch_norm_kernel"),
        "effcap.utils.graph_rewriting",
    )
    offenders = [
        f"{module} imports {name}"
        for module in modules()
        if floor_of(module) in ("samplers", "effcap") and not module.startswith(exempt)
        for name in imported_names(module)
        if name.partition(".")[0] in BACKENDS
    ]
    assert not offenders, listed(offenders)


def test_every_module_has_a_docstring():
    without = [module for module in modules() if not ast.get_docstring(tree(module))]
    assert not without, listed(without)


def test_no_file_is_longer_than_500_lines():
    folders = (*FLOORS, "tests", "benchmarks")
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    }
    long = [f"{path}: {length}" for path, length in lengths.items() if length > MAX_LINES]
    assert not long, listed(long)


def test_functions_of_trainers_and_tools_take_at_most_7_parameters():
    long = []
    for module in modules():
        if floor_of(module) in ("trainers", "tools"):
            for function in functions(tree(module)):
                args = function.args
                names = [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
                count = len([name for name in names if name not in ("self", "cls")])
                if count > MAX_PARAMETERS:
                    long.append(f"{module}.{function.name} takes {count}")
    assert not long, listed(long)


def test_modules_of_different_packages_have_different_names():
    by_name = defaultdict(list)
    for module, path in modules().items():
        if package_of(module) not in NAMED_AFTER_OTHERS:
            by_name[path.stem].append(module)
    shared = [
        f"{name}: {', '.join(same)}"
        for name, same in by_name.items()
        if len(same) > 1 and name not in PARALLEL
    ]
    assert not shared, listed(shared)


def test_no_module_is_named_like_a_mapped_folder():
    wrong = [
        module
        for module, path in modules().items()
        if path.stem in MAPPED_FOLDERS
        or (path.name == "__init__.py" and path.parent.name in MAPPED_FOLDERS)
        and path.parent.parent != ROOT
    ]
    assert not wrong, listed(wrong)


def test_tests_import_no_other_test_and_no_benchmark():
    wrong = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                parts = name.split(".")
                if parts[0] in ("tests", "benchmarks", "conftest") or parts[-1].startswith("test_"):
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, listed(wrong)
