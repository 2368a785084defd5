"""``margincast init DIR``: a workspace of specs for someone who installed the wheel."""

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from margincast.core.errors import InputError

SPEC_FOLDERS = ("features", "training", "serving")
_PACKED = "workspace"


def run(directory: Path) -> list[Path]:
    """Write the shipped specs and READMEs into a folder; existing files are never overwritten.

    Returns:
        Files written.

    Raises:
        InputError: the target is a file, or a spec in it would be overwritten.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; give a folder")
    with as_file(files("margincast") / _PACKED) as packed:
        source = packed if packed.is_dir() else Path(__file__).resolve().parents[3]
        shipped = [source / "mlruns" / "README.md"]
        for folder in SPEC_FOLDERS:
            shipped += sorted((source / folder).rglob("*.toml"))
            shipped += sorted((source / folder).rglob("*.md"))
        pairs = [(path, directory / path.relative_to(source)) for path in shipped]
        present = [str(target) for _, target in pairs if target.exists()]
        if present:
            raise InputError(
                f"{directory} holds already: {', '.join(present[:3])}"
                f"{' ...' if len(present) > 3 else ''}; nothing was written, choose another folder"
            )
        for path, target in pairs:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return [target for _, target in pairs]
