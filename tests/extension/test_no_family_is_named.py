"""No code outside of a family's own files, layers, published rows, recipes and published heads names a family.

Docstrings, comments, help texts and examples may: they are read, not run. Code may not: no import of a family's module,
no identifier, no comparison with its name.
"""

import ast
import re
from pathlib import Path

import overtone

PACKAGE = Path(overtone.__file__).parent
OWN = ("models", "layers", "published", "recipes", "heads")
TESTS = ("startswith", "endswith", "match", "fullmatch", "search")
FAMILY = re.compile(r"hornet|hbonet|mobilenet|harmonic|\bharm_|\bHarm[A-Z]", re.IGNORECASE)


def named(tree: ast.AST) -> list[str]:
    """What a module's code says of a family: imports, identifiers, and texts that something is compared with."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.Name):
            found.append(node.id)
        elif isinstance(node, ast.Attribute):
            found.append(node.attr)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.append(node.name)
        elif isinstance(node, ast.Compare):
            parts = ast.walk(node)
            found += [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", None) in TESTS:
            parts = (part for argument in node.args for part in ast.walk(argument))
            found += [str(part.value) for part in parts if isinstance(part, ast.Constant)]
    return [name for name in found if FAMILY.search(name)]


def test_the_finder_finds() -> None:
    code = "from overtone.models.hornet import HorNet\nif family == 'hbonet' or name.startswith('harm_'):\n    pass\n"
    assert len(named(ast.parse(code))) == 3
    assert named(ast.parse('"""About HorNet."""\nhelp = "such as hbonet_x050"\n')) == []


def test_no_code_names_a_family() -> None:
    paths = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in OWN]
    assert len(paths) > 100
    found = {
        str(path.relative_to(PACKAGE)): names
        for path in paths
        if (names := named(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert found == {}
