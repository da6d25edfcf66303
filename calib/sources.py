"""Where a command's model comes from: the demo, a diffusers folder, or a function of the user's own code.

``FILE.py:FUNCTION`` or ``PACKAGE.MODULE:FUNCTION`` names a function without arguments that gives what ``calib.adapt``
gives. Code is run only where it is named so.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from calib.adapters import PretrainedModel
from calib.errors import ModelError
from calib.models import load_model

if TYPE_CHECKING:
    from types import ModuleType

SEPARATOR = ":"
FILE_MODULE = "modiff_model_"
"""Before a file's name, so that no package of that name is hidden."""
MEND = "write FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, a function that returns calib.adapt(...)"


def read_model(source: str | None) -> PretrainedModel:
    """The model that ``--model`` names.

    Args:
        source: a diffusers folder, ``FILE.py:FUNCTION`` or ``PACKAGE.MODULE:FUNCTION``; None = the demo model.

    Raises:
        ModelError: nothing of that name, or a function that does not give a model. What the function itself raises
            is passed on as it is.
    """
    if source is None:
        return load_model()
    if not names_code(source):
        return load_model(Path(source))
    place, _, function = source.rpartition(SEPARATOR)
    module = _module_of_file(Path(place)) if place.endswith(".py") else _module(place)
    build = getattr(module, function, None)
    if not callable(build):
        found = ", ".join(name for name, part in vars(module).items() if _is_own(part, module)) or "none"
        raise ModelError(f"no function {function!r}, only {found}", where=place, mend=MEND)
    model = build()
    if not isinstance(model, PretrainedModel):
        raise ModelError(f"it gives a {type(model).__name__}", where=source, mend=MEND)
    return model


def names_code(source: str) -> bool:
    """Whether a source is a function's and not a folder's name; a folder of that name wins."""
    return SEPARATOR in source and not Path(source).exists()


def _module_of_file(path: Path) -> ModuleType:
    """A file as a module; what lies beside it can be imported, as when Python runs the file."""
    if not path.is_file():
        raise ModelError("no such file", where=str(path), mend=MEND)
    _find_beside(path.resolve().parent)
    name = f"{FILE_MODULE}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses, among others, look their module up
    spec.loader.exec_module(module)
    return module


def _module(name: str) -> ModuleType:
    _find_beside(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # it is there, and misses something itself
        raise ModelError("no such module, and no such folder", where=name, mend=MEND) from error


def _find_beside(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _is_own(part: object, module: ModuleType) -> bool:
    return callable(part) and not isinstance(part, type) and getattr(part, "__module__", None) == module.__name__
