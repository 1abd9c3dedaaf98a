"""Finds plug-ins by name: a file in `pretexts/` or `downstream/`, an entry point, or a file given with --plugin.

Entry points are in the groups `bench.pretexts` and `bench.downstreams`; each names a class. A file's name is the plug-in's name,
and the file holds one class of its kind. Listing the names imports nothing but files given with --plugin.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, cast, get_args

from bench.errors import DataError, UsageError, unknown
from bench.initialisation import INIT

if TYPE_CHECKING:
    from bench.protocol import Protocol

FOLDERS = {"pretexts": "pretexts", "downstreams": "downstream"}
NEEDED = {"pretexts": (), "downstreams": ("title", "data", "protocols")}
"""The values that a class of a kind must have beside its methods."""
UNLISTED = {("pretexts", INIT): "_init"}
"""Built-in tasks that no list shows, and their files: weights from elsewhere, which `--init` names."""
SHUFFLED = "shuffled"
"""NAME:shuffled is the pretext task NAME on targets in another order (`bench.contract.shuffled`)."""
ALL = {
    "pretexts": ("cgan_color", "inpainting", "l1_color", "random_init"),
    "downstreams": ("voc_cls", "voc_seg"),
}
"""The built-in plug-ins that `all` means, those of the paper's Table 4; `every` means all pretext tasks that there are."""
FACTS = {"paper": "", "family": "other", "trains": "all", "supervision": "none"}
"""What a list shows of a pretext task, with what holds where its class says nothing."""
LONGEST = 1_000_000
"""The most bytes of a plug-in's file whose text a record keeps."""
SOURCE = "__bench_source__"
"""The attribute of a plug-in's module that holds the text it was loaded from."""
_given: dict[str, Path] = {}


def add_plugin(path: Path) -> None:
    """Add the plug-in in a Python file, under the file's name; UsageError when there is no such file."""
    if not path.is_file() or path.suffix != ".py":
        raise UsageError(f"--plugin {path}: {'not a Python file (.py)' if path.exists() else 'no such Python file'}.")
    _given[path.stem] = path.resolve()
    loaded = sys.modules.get(_module_name(path.stem, path.resolve()))
    if loaded is not None and vars(loaded).get(SOURCE) != path.read_bytes():  # edited since, as in a notebook
        del sys.modules[loaded.__name__]


def forget_plugins() -> None:
    """Forget the files that earlier calls named; one that is named again is loaded again where it was edited."""
    _given.clear()


def summaries(kind: str) -> dict[str, str]:
    """Return every name of a kind, `pretexts` or `downstreams`, with the first line of its file's docstring."""
    found = {name: _first_line(path) for name, path in _files(kind).items()}
    for name, point in _points(kind).items():
        found.setdefault(name, f"from {point.dist.name if point.dist else point.value}")
    for name, path in _given.items():
        if issubclass(_given_class(name), _base(kind)):
            found[name] = _first_line(path)
    return dict(sorted(found.items()))


def facts(name: str) -> dict[str, str]:
    """Return `paper`, `family`, `trains` and `supervision` of a pretext task; of a built-in one without importing torch."""
    path = None if name in _given else _files("pretexts").get(name)
    if path is None:
        task = load("pretexts", name)
        return {fact: str(getattr(task, fact)) for fact in FACTS}
    return {fact: str(_constants(path).get(fact, usual)) for fact, usual in FACTS.items()}


def _constants(path: Path) -> dict[str, Any]:
    """Return what the classes of a file, and those of the files beside it that it imports, say of themselves as constants."""
    found: dict[str, Any] = {}
    for node in _parsed(path).body:
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if module.startswith("pretexts._"):
            found |= _constants(path.with_name(f"{module.partition('.')[2]}.py"))
        for part in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and isinstance(part.value, ast.Constant):
                found[part.target.id] = part.value.value
    return found


def found(kind: str) -> list[str]:
    """Return the names of the files and entry points of a kind; nothing is loaded, and files given with --plugin are left out."""
    return sorted({*_files(kind), *_points(kind)})


def load(kind: str, name: str) -> Any:
    """Return a plug-in's class; UsageError for a name that does not exist, DataError for a file that does not load."""
    base, colon, rest = name.partition(":")
    if kind == "pretexts" and colon and rest == SHUFFLED:
        from bench.contract import shuffled

        return shuffled(base, load(kind, base))
    if (kind, name) in UNLISTED:
        return _class_of(importlib.import_module(f"{FOLDERS[kind]}.{UNLISTED[kind, name]}"), (_base(kind),))
    if name in _given and issubclass(given := _given_class(name), _base(kind)):
        return given
    if name in _files(kind):
        return _class_of(importlib.import_module(f"{FOLDERS[kind]}.{name}"), (_base(kind),))
    points = _points(kind)
    if name not in points:
        raise _unknown(kind, name, summaries(kind))
    try:
        return points[name].load()
    except (Exception, SystemExit) as error:
        raise DataError(f"the plug-in {name} ({points[name].value}) does not load: {_reason(error)}.") from error


def protocols(name: str) -> Mapping[str, Protocol]:
    """Return the protocols of a downstream task by name: of a built-in task without its class, which would import torch."""
    known = apart(name) if name not in _given else {}
    if known:
        return known
    check_complete("downstreams", name)
    return cast("Mapping[str, Protocol]", load("downstreams", name).protocols)


def apart(name: str) -> Mapping[str, Protocol]:
    """Return the protocols of a downstream task that stand apart from its class, as those of the built-in tasks do; else none."""
    known = importlib.import_module(f"{FOLDERS['downstreams']}._protocols").PROTOCOLS if name in _files("downstreams") else {}
    return cast("Mapping[str, Protocol]", known.get(name, {}))


def source_digest(kind: str, name: str) -> str:
    """Return the first 16 digits of the SHA-256 of a plug-in's file; "" for a built-in task, which its version identifies."""
    path = _source_file(kind, name)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path else ""


def source_text(kind: str, name: str) -> str:
    """Return the text of a plug-in's file; "" for a built-in task, and for a file of over 1 MB or that is not UTF-8."""
    path = _source_file(kind, name)
    try:
        return path.read_bytes().decode() if path and path.stat().st_size <= LONGEST else ""
    except UnicodeDecodeError:
        return ""


def _source_file(kind: str, name: str) -> Path | None:
    """Return a plug-in's file; None for a built-in task, and where Python knows no file."""
    name = name.partition(":")[0]
    if name in _given:
        return _given[name]
    file = None if name in _files(kind) or (kind, name) in UNLISTED else inspect.getsourcefile(load(kind, name))
    return Path(file) if file else None


def names(kind: str, asked: Sequence[str]) -> list[str]:
    """Return the names asked for, each once; UsageError for an unknown name, or for none.

    `all` is `ALL` and those of the user's own. Of pretext tasks `every` is all that there are, and a family's name is its tasks.
    NAME:shuffled is the task NAME on targets in another order.
    """
    known = summaries(kind)
    chosen: list[str] = []
    if not asked:
        raise UsageError(f"name at least one of the {kind}: {', '.join(known)}.")
    for name in asked:
        chosen += [name] if name in known else _group(kind, name, known)
    for name in chosen:
        base, _, rest = name.partition(":")
        if base not in known or rest not in ("", *([SHUFFLED] if kind == "pretexts" else [])):
            raise _unknown(kind, name, known)
    return list(dict.fromkeys(chosen))


def _group(kind: str, name: str, known: Iterable[str]) -> list[str]:
    """Return the plug-ins among those `known` that a name stands for: several for a group's name, else itself."""
    from bench.protocol import Family

    if name == "all":
        return [one for one in known if one in ALL[kind] or one not in _files(kind)]
    if kind != "pretexts":
        return [name]
    if name == "every":
        return list(known)
    if name in get_args(Family):
        return [one for one in known if facts(one)["family"] == name]
    return [name]


def check_complete(kind: str, name: str) -> None:
    """Raise DataError when a plug-in's class lacks a method or a value that its kind must have; it names the file."""
    name = name.partition(":")[0]
    plugin = load(kind, name)
    missing = [f"{method}()" for method in sorted(plugin.__abstractmethods__)]
    missing += [value for value in NEEDED[kind] if not hasattr(plugin, value)]
    if kind == "pretexts" and hasattr(plugin, "brings"):  # ignored, an untrained decoder would be taken for a trained one
        raise DataError(f"the plug-in {plugin.__name__} has `brings`, which is called `trains` now; rename it.")
    if kind == "pretexts" and len(inspect.signature(plugin.caveats).parameters) != 2:  # it is called after training, too late
        raise DataError(
            f"caveats() of the plug-in {plugin.__name__} takes `scores`, the averages of its own scores, now; add it."
        )
    if missing:
        file = _given.get(name) or inspect.getsourcefile(plugin)
        base = _base(kind).__name__
        raise DataError(
            f"the plug-in {file} is incomplete: its class {plugin.__name__} lacks {', '.join(missing)}, which a {base} needs."
        )


def _unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    return UsageError(f"{unknown(kind.removesuffix('s'), name, known)} A file of your own is named with --plugin.")


def _files(kind: str) -> dict[str, Path]:
    package = importlib.import_module(FOLDERS[kind])
    return {path.stem: path for folder in package.__path__ for path in Path(folder).glob("*.py") if path.stem[0] not in "_."}


def _points(kind: str) -> dict[str, EntryPoint]:
    return _points_of(kind, entry_points, tuple(sys.path))


@cache
def _points_of(kind: str, find: Callable[..., Iterable[EntryPoint]], path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Return a kind's entry points by name, read once for a search path: to read what is installed takes 20 ms."""
    return {point.name: point for point in find(group=f"bench.{kind}")}


def _first_line(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "(does not parse)"
    return _line_of(path, status.st_mtime_ns, status.st_size)


@cache
def _line_of(path: Path, changed: int, size: int) -> str:
    """Return the first line of a file's docstring; a file that was `changed` is read again."""
    try:
        text = ast.get_docstring(_parsed(path)) or ""
    except DataError:
        return "(does not parse)"
    return text.split("\n", 1)[0]


def _parsed(path: Path) -> ast.Module:
    """Return a file's syntax tree, read as Python reads it: in the encoding that it declares."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the same warnings come when the file is loaded
            return ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:  # MemoryError: the parser's stack is full
        raise DataError(f"the plug-in {path} does not parse: {_reason(error)}.") from error


def _reason(error: BaseException) -> str:
    """Return an error's message as one line of at most 300 characters; its type when a plug-in's error cannot be printed."""
    try:
        said = " ".join(str(error).split())
    except Exception:
        said = ""
    return said[:300] or type(error).__name__


def _base(kind: str) -> type:
    """Return the class that a plug-in of a kind derives from."""
    from bench import contract

    return cast(type, contract.Pretext if kind == "pretexts" else contract.Downstream)


def _given_class(name: str) -> type:
    """Return the class of a file given with --plugin, which may derive from any other task's class."""
    return _class_of(_from_file(name, _given[name]), tuple(map(_base, FOLDERS)))


def _module_name(name: str, path: Path) -> str:
    return f"bench_plugin_{name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _from_file(name: str, path: Path) -> ModuleType:
    module_name = _module_name(name, path)
    if module_name in sys.modules:
        return sys.modules[module_name]
    loader = _Anew(module_name, str(path))
    specification = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module_name] = module
    try:
        loader.exec_module(module)
    except (Exception, SystemExit, GeneratorExit) as error:  # a plug-in that calls exit() must not end the program
        del sys.modules[module_name]
        raise DataError(f"the plug-in {path} does not load: {type(error).__name__}: {_reason(error)}.") from error
    return module


class _Anew(SourceFileLoader):
    """Loads a file from its source: Python tells cached bytecode by the second, and would miss a quick edit of a plug-in."""

    def get_code(self, fullname: str) -> CodeType:
        """Return the code compiled from the file, and keep its text in the module."""
        text = self.get_data(self.path)
        vars(sys.modules[fullname])[SOURCE] = text
        return self.source_to_code(text, self.path)


def _class_of(module: ModuleType, bases: tuple[type, ...]) -> type:
    """Return the one class that a module itself defines and that derives from a base; DataError for none or several."""
    assert module.__spec__ is not None  # unlike `__name__`, a plug-in does not overwrite it
    name, file = module.__spec__.name, module.__spec__.origin
    classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, bases)]
    own = list(dict.fromkeys(value for value in classes if value.__module__ == name))
    if len(own) != 1:
        kinds = " or ".join(base.__name__ for base in bases)
        raise DataError(f"{file} has {len(own)} classes that derive from {kinds}; it must have one.")
    return own[0]
