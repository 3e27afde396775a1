"""Reads the documentation inside Python source: one document a module, its docstrings in order."""

import ast
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path

from corpus.readers.files import list_files, read_file

# Shorter docstrings say "Return x." and little else.
_MIN_CHARS = 200
_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield (heading, node) for the classes and functions under `node`, in order."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _Definition):
            continue
        name = f"{prefix}{child.name}"
        if isinstance(child, ast.ClassDef):
            yield f"class {name}", child
            yield from _definitions(child, f"{name}.")
        else:
            yield f"{name}({ast.unparse(child.args)})", child


def _added_docs(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (name, docstring) of NumPy's add_newdoc("module", "name", "doc") calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "add_newdoc":
            texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
            texts = [t for t in texts if isinstance(t, str)]
            if len(texts) >= 3:
                yield ".".join(texts[1:-1]), inspect.cleandoc(texts[-1])


def module_documentation(source: str) -> str:
    """Return the docstrings of a module, each under the signature that it explains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        tree = ast.parse(source)
    entries = [("", ast.get_docstring(tree) or "")]
    entries += [(head, ast.get_docstring(n) or "") for head, n in _definitions(tree, "")]
    if "add_newdoc(" in source:
        entries += _added_docs(tree)
    return "\n\n\n".join(
        f"{heading}\n\n{text}".strip("\n") for heading, text in entries if len(text) >= _MIN_CHARS
    )


def read_docstrings(root: Path, folders: list[str], exclude: str = "") -> Iterator[str]:
    """Yield the documentation of each module under the `folders` of `root`."""
    for path in list_files(root, ["*.py"], exclude, folders):
        try:
            yield module_documentation(read_file(path))
        except SyntaxError:  # template files that only look like Python
            continue
