"""Which module imports which: packages, floors, circles and imports that run back up.

    python tests/architecture.py

Lazy imports, and those for type checking alone, count like any other. A module's floor is one above
the highest module that it imports.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "unlearnable"
# From the ground up: a package may import those before it, and itself.
ORDER = (
    "errors", "_version", "engine", "io", "hub", "data", "perturbation", "protected", "methods",
    "evaluation", "importers", "photos", "app", "cli", "__init__", "__main__",
)  # fmt: skip
_EVERYWHERE = ("Self", "logger")  # each module's own, by convention
LONGEST = 350  # lines of a file


def room(module):
    """The entry at the top of the package that a module belongs to."""
    return module.split(".")[0]


def modules(package=PACKAGE):
    """Every module's name below the package -> its file."""
    paths = sorted(package.rglob("*.py"))
    return {".".join(path.relative_to(package).with_suffix("").parts): path for path in paths}


def imports(name, known):
    """The modules of this package that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(known[name].read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        here = name.split(".")
        base = here[: len(here) - node.level] + (node.module.split(".") if node.module else [])
        for alias in node.names:
            choices = ([*base, alias.name], base, [*base, "__init__"])
            found.add(next(c for c in map(".".join, choices) if c in known))
    return found - {name}


def graph(package=PACKAGE):
    """Module -> the modules it imports."""
    known = modules(package)
    return {name: imports(name, known) for name in known}


def circle(arrows):
    """Modules that import one another in a circle, or none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def upward(arrows):
    """Imports of a room by one that is before it in ``ORDER``."""
    return sorted(
        (name, other)
        for name, others in arrows.items()
        for other in others
        if room(other) != room(name) and ORDER.index(room(other)) >= ORDER.index(room(name))
    )


def floors(arrows):
    """Module -> floor, from 1; there must be no circle."""
    found = {}
    for name in TopologicalSorter(arrows).static_order():
        found[name] = 1 + max((found[other] for other in arrows[name]), default=0)
    return found


def definitions(path):
    """Names that a module defines at its top, but for type variables."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            flat = [
                t for one in targets for t in (one.elts if isinstance(one, ast.Tuple) else [one])
            ]
            names = [target.id for target in flat if isinstance(target, ast.Name)]
            yield from (name for name in names if name not in _EVERYWHERE)


def repeated(package=PACKAGE):
    """Public names that several modules define -> those modules."""
    found = {}
    for module, path in modules(package).items():
        for name in definitions(path):
            found.setdefault(name, []).append(module)
    return {n: where for n, where in found.items() if len(where) > 1 and not n.startswith("_")}


def main():
    arrows = graph()
    files = modules()
    circular = circle(arrows)
    rooms = {name: {room(o) for o in others} for name, others in arrows.items()}
    by_room = {r: set() for r in ORDER}
    for name, others in rooms.items():
        by_room[room(name)] |= others - {room(name)}
    floor_of = floors(by_room) if not circle(by_room) else {}
    for name in reversed(ORDER):
        lines = {m: len(p.read_text().splitlines()) for m, p in files.items() if room(m) == name}
        print(
            f"floor {floor_of.get(name, '?'):>2}  {name:<13} {len(lines):>3} modules "
            f"{sum(lines.values()):>6,} lines  <- {', '.join(sorted(by_room[name])) or 'nothing'}"
        )
    long = {m: len(p.read_text().splitlines()) for m, p in files.items()}
    print(f"{sum(long.values()):,} lines in {len(long)} modules, {len(ORDER)} entries at the top")
    print("circles:", " -> ".join(circular) or "none")
    print("imports that run up:", "; ".join(f"{a} -> {b}" for a, b in upward(arrows)) or "none")
    print("defined twice:", repeated() or "none")
    print(f"over {LONGEST} lines:", {m: n for m, n in long.items() if n > LONGEST} or "none")


if __name__ == "__main__":
    main()
