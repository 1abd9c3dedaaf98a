"""What no line of the program does: read data that could run, run text, open the network, except in the one place for it."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for package in ("bench", "pretexts", "downstream", "results")
    for path in sorted((ROOT / package).rglob("*.py"))
}

Finder = Callable[[ast.Module], Iterator[int]]


def names(tree: ast.Module) -> dict[str, str]:
    """Return what every imported name stands for, wherever in the file it is imported."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = alias.name if alias.asname else alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def full_name(node: ast.expr, known: dict[str, str]) -> str:
    """Return the name of what an expression means, `numpy.load` for `np.load`; "" for one without a name."""
    if isinstance(node, ast.Attribute):
        before = full_name(node.value, known)
        return f"{before}.{node.attr}" if before else ""
    return known.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def imports(*modules: str) -> Finder:
    """Find imports of a module, of one in it, or of something from it, and `__import__` of it."""

    def find(tree: ast.Module) -> Iterator[int]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                asked = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                asked = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            if any(f"{name}.".startswith(f"{module}.") for name in asked for module in modules):
                yield node.lineno

    return find


def mentions(*wanted: str, unless: Callable[[ast.Call], bool] = lambda call: False) -> Finder:
    """Find every use of a name, called or handed on; a call that `unless` says yes to is well."""

    def find(tree: ast.Module) -> Iterator[int]:
        known = names(tree)
        well = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call) and unless(n)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name | ast.Attribute) and full_name(node, known) in wanted and id(node) not in well:
                yield node.lineno

    return find


def given(name: str, value: object) -> Callable[[ast.Call], bool]:
    """Return what tells whether a call has a keyword with a constant."""

    def tell(call: ast.Call) -> bool:
        return any(k.arg == name and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords)

    return tell


def keyword(name: str, *well: object) -> Finder:
    """Find calls that are given a keyword with another value than these."""

    def find(tree: ast.Module) -> Iterator[int]:
        for node in ast.walk(tree):
            if not isinstance(node, ast.keyword) or node.arg != name:
                continue
            if not (isinstance(node.value, ast.Constant) and node.value.value in well):
                yield node.value.lineno

    return find


def attributes(*wanted: str) -> Finder:
    """Find an attribute of whatever object."""

    def find(tree: ast.Module) -> Iterator[int]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in wanted:
                yield node.lineno

    return find


RULES: dict[str, tuple[Finder, tuple[str, ...]]] = {
    "pickle and its like": (
        imports("pickle", "_pickle", "pickletools", "marshal", "shelve", "dbm", "dill", "joblib", "cloudpickle"),
        (),
    ),
    "pandas' pickles": (attributes("read_pickle", "to_pickle"), ()),
    "torch.load": (
        mentions("torch.load", "torch.serialization.load", "torch.jit.load", "torch.package.PackageImporter"),
        ("bench/models/weights_file.py",),  # with weights_only=True, as the rule below holds it to
    ),
    "torch's stores of code": (imports("torch.hub", "torch.package", "torch.jit", "torch.utils.model_zoo"), ()),
    "torch.hub": (mentions("torch.hub.load", "torch.hub.load_state_dict_from_url", "torch.utils.model_zoo.load_url"), ()),
    "np.load that could unpickle": (mentions("numpy.load", unless=given("allow_pickle", False)), ()),
    "allow_pickle": (keyword("allow_pickle", False), ()),
    "weights_only": (keyword("weights_only", True), ()),
    "trusting a remote": (keyword("trust_remote_code", False), ()),
    "numpy's other readers": (
        mentions("numpy.lib.npyio.NpzFile", "numpy.lib.format.read_array", "numpy.loadtxt", "numpy.genfromtxt"),
        (),
    ),
    "yaml": (imports("yaml", "ruamel"), ()),
    "eval, exec, compile": (
        mentions("eval", "exec", "compile", "builtins.eval", "builtins.exec", "builtins.compile", "__import__"),
        (),
    ),
    "a shell": (mentions("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"), ()),
    "a shell by keyword": (keyword("shell", False), ()),
    "other programs": (
        imports("subprocess"),
        ("bench/experiment/session.py", "bench/launch/local.py", "bench/launch/slurm.py", "bench/launch/supervisor.py"),
    ),
    "os.exec and os.spawn": (
        attributes("execv", "execve", "execvp", "execvpe", "execl", "execlp", "spawnv", "spawnl", "posix_spawn"),
        (),
    ),
    "urllib": (imports("urllib"), ("bench/data/download.py",)),
    "other ways to the network": (
        imports(
            "requests",
            "httpx",
            "aiohttp",
            "urllib3",
            "ftplib",
            "smtplib",
            "telnetlib",
            "xmlrpc",
            "socketserver",
            "paramiko",
            "fsspec",
        ),
        (),
    ),
    "http": (imports("http"), ("bench/data/download.py",)),
    "sockets": (
        imports("socket"),
        ("bench/launch/ray_engine.py", "bench/storage/files.py", "bench/storage/launched.py", "bench/storage/offline.py"),
    ),
    "downloads by others": (
        imports("torchvision.datasets", "huggingface_hub", "datasets", "transformers", "kagglehub"),
        ("bench/data/sources.py",),  # their readers of what is on the disk
    ),
    "pretrained weights of others": (keyword("pretrained", False), ("bench/models/sources.py",)),
    "archives": (
        imports("tarfile", "zipfile"),
        ("bench/data/archive.py", "bench/models/weights_file.py", "bench/storage/arrays.py"),
    ),  # record.py: what an .npz says of itself
    "unpacking by others": (mentions("shutil.unpack_archive", "shutil.make_archive"), ()),
    "an archive's own unpacking": (attributes("extractall", "extract"), ("bench/data/archive.py",)),
    "XML": (imports("xml", "lxml", "xmltodict"), ("bench/data/demo.py", "bench/data/voc.py")),
    "reading XML": (
        mentions(
            *(
                f"xml.etree.ElementTree.{name}"
                for name in ("parse", "iterparse", "fromstring", "XML", "XMLParser", "XMLPullParser")
            )
        ),
        ("bench/data/voc.py",),
    ),
    "code from files": (
        imports("importlib.util", "importlib.machinery", "runpy", "imp", "zipimport", "code", "codeop"),
        (
            "bench/__init__.py",
            "bench/registry.py",
            "bench/training/trackers.py",
        ),  # the first finds this program's own packages, whatever lies beside
    ),
    "exec_module": (
        attributes("exec_module", "load_module", "spec_from_file_location", "run_path", "run_module"),
        ("bench/registry.py",),
    ),
    "import by name": (
        mentions("importlib.import_module", "importlib.reload"),
        ("bench/__init__.py", "bench/maintenance/doctor.py", "bench/registry.py"),
    ),
    "entry points": (mentions("importlib.metadata.entry_points", "importlib.metadata.EntryPoint"), ("bench/registry.py",)),
    "markup that is not escaped": (attributes("to_html"), ()),
    "a page without escapes": (keyword("autoescape", True), ()),
    "temporary names that can be guessed": (mentions("tempfile.mktemp", "os.tempnam"), ()),
}

PLANTED: dict[str, tuple[str, ...]] = {
    "pickle and its like": (
        "import pickle",
        "from pickle import loads",
        "def f():\n    import dill as d",
        "import a, marshal",
        "import shelve",
        "import joblib.numpy_pickle",
        "import cloudpickle",
    ),
    "pandas' pickles": ("pandas.read_pickle(path)", "frame.to_pickle(path)"),
    "torch.load": (
        "import torch\ntorch.load(path, weights_only=True)",
        "import torch as t\nt.load(p)",
        "from torch import load as l\nl(p)",
    ),
    "torch's stores of code": ("import torch.hub", "from torch import jit"),
    "torch.hub": ("import torch\ntorch.hub.load('a', 'b')", "from torch import hub\nhub.load('a', 'b')"),
    "np.load that could unpickle": (
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, mmap_mode='r')",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "from numpy import load\nload(path)",
        "import numpy\nf = numpy.load",
        "import numpy as np\nnp.load(path, allow_pickle=safe)",
    ),
    "allow_pickle": ("np.lib.format.read_array(file, allow_pickle=True)", "f(allow_pickle=maybe)"),
    "weights_only": ("torch.load(path, weights_only=False)", "f(weights_only=safe)"),
    "trusting a remote": ("f(trust_remote_code=True)",),
    "numpy's other readers": ("import numpy as np\nnp.loadtxt(path)",),
    "yaml": ("import yaml", "from ruamel.yaml import YAML"),
    "eval, exec, compile": (
        "eval(text)",
        "exec(text)",
        "f = compile",
        "import builtins\nbuiltins.exec(text)",
        "__import__('pickle')",
    ),
    "a shell": (
        "import os\nos.system('ls')",
        "from os import popen\npopen('ls')",
        "import subprocess\nsubprocess.getoutput('ls')",
    ),
    "a shell by keyword": ("run('ls', shell=True)", "run('ls', shell=maybe)"),
    "other programs": ("import subprocess", "from subprocess import run"),
    "os.exec and os.spawn": ("os.execv(path, [])",),
    "urllib": ("import urllib.request", "from urllib.parse import urlsplit"),
    "other ways to the network": ("import requests", "from httpx import get", "import ftplib"),
    "http": ("import http.client", "from http.server import HTTPServer"),
    "sockets": ("import socket", "from socket import socket"),
    "downloads by others": (
        "from torchvision.datasets.utils import download_url",
        "import huggingface_hub",
        "from torchvision import datasets",
    ),
    "pretrained weights of others": ("timm.create_model('resnet18', pretrained=True)", "f(pretrained=maybe)"),
    "archives": ("import tarfile", "from zipfile import ZipFile"),
    "unpacking by others": ("import shutil\nshutil.unpack_archive(path)",),
    "an archive's own unpacking": ("tar.extractall(path, filter='data')", "file.extract(member)"),
    "XML": ("from xml.etree import ElementTree", "import xml.dom.minidom", "import lxml.etree"),
    "reading XML": (
        "from xml.etree import ElementTree\nElementTree.fromstring(text)",
        "import xml.etree.ElementTree as E\nE.parse(path)",
        "from xml.etree.ElementTree import iterparse\niterparse(path)",
    ),
    "code from files": ("import importlib.util", "from importlib import machinery", "import runpy"),
    "exec_module": ("loader.exec_module(module)", "util.spec_from_file_location(name, path)"),
    "import by name": (
        "import importlib\nimportlib.import_module(name)",
        "from importlib import import_module\nimport_module(name)",
    ),
    "entry points": (
        "from importlib.metadata import entry_points\nentry_points()",
        "import importlib.metadata\nimportlib.metadata.entry_points()",
    ),
    "markup that is not escaped": ("frame.style.to_html()",),
    "a page without escapes": ("Environment(autoescape=False)", "Environment(autoescape=choose)"),
    "temporary names that can be guessed": ("import tempfile\ntempfile.mktemp()",),
}

WELL = """
import importlib.metadata
import re
import numpy as np
import torch
from importlib import resources
re.compile("a")
model.eval()
torch.compile(model)
np.load(path, allow_pickle=False)
np.load(path, mmap_mode="r", allow_pickle=False)
run(["ls"], shell=False)
timm.create_model(name, pretrained=False)
Environment(autoescape=True)
importlib.metadata.version("torch")
"""


def test_the_whole_program_is_looked_at() -> None:
    assert {"bench/cli/app.py", "bench/data/voc.py", "pretexts/cgan_color.py", "downstream/voc_seg.py", "results/page.py"} <= set(
        SOURCES
    )


@pytest.mark.parametrize("what", RULES)
def test_it_is_nowhere_but_where_it_is_allowed(what: str) -> None:
    find, allowed = RULES[what]
    found = {file: sorted(find(tree)) for file, tree in SOURCES.items()}
    places = {file: lines for file, lines in found.items() if lines}
    assert {file: lines for file, lines in places.items() if file not in allowed} == {}
    assert set(allowed) <= set(places), "a place that is allowed and does not use it"


@pytest.mark.parametrize(("what", "planted"), [(what, text) for what, texts in PLANTED.items() for text in texts])
def test_what_is_planted_is_found(what: str, planted: str) -> None:
    assert list(RULES[what][0](ast.parse(planted)))


def test_everything_that_is_looked_for_is_planted() -> None:
    assert set(PLANTED) == set(RULES)


@pytest.mark.parametrize("what", RULES)
def test_what_is_well_is_left_alone(what: str) -> None:
    assert list(RULES[what][0](ast.parse(WELL))) == []


def test_the_page_is_made_by_an_environment_that_escapes() -> None:
    text = (ROOT / "results" / "page.py").read_text(encoding="utf-8")
    assert text.count("Environment(") == text.count("Environment(loader=files, autoescape=True") == 1
    for name in ("page.html.j2", "page.css.j2"):
        template = (ROOT / "results" / name).read_text(encoding="utf-8").replace(" ", "")
        assert "|safe" not in template and "autoescapefalse" not in template
