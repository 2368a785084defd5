"""``margincast features build``: a feature set on a folder of market data, as one Parquet file."""

import json
from datetime import timedelta
from pathlib import Path

from margincast.core.errors import InputError
from margincast.core.time import format_duration
from margincast.data.bars import usual_step
from margincast.data.files import SUFFIX
from margincast.data.quality import found
from margincast.data.writing import write_table
from margincast.features.pipeline import build_features
from margincast.jobs.console import say
from margincast.jobs.setting import Setting
from margincast.specs.features import FeatureSet
from margincast.specs.loading import apply_overrides, load_spec, validate_spec
from margincast.specs.training import Data
from margincast.training.workload import read_market


def build(spec: Path, data: Path | None, out: Path | None, overrides: list[str]) -> Path:
    """Build a feature set and write ``features.parquet`` and ``features.json``.

    ``--data`` is a folder with ``bars/``, ``book/`` or ``trades/`` below it, or a folder of bars.
    Overrides of ``data.*`` say which entries to read, as in a training spec; others change the set.

    Returns:
        The Parquet file.
    """
    own = [text for text in overrides if not text.startswith("data.")]
    feature_set = load_spec(spec, FeatureSet, own)
    setting = Setting.of(spec, data, out, f"features-{feature_set.name}")
    chosen = _data_entries(setting.root, feature_set, overrides)
    market = read_market(chosen, feature_set, setting.root)
    table = build_features(feature_set, market.sources)
    findings = found((*market.findings, *table.findings))
    path = setting.out / "features.parquet"
    write_table(table.frame, path)
    record = {
        "feature_set": feature_set.model_dump(mode="json"),
        "feature_set_hash": table.feature_set_hash,
        "data_digest": market.digest,
        "units": dict(table.units),
        "findings": [finding.as_record() for finding in findings],
    }
    (setting.out / "features.json").write_text(
        json.dumps(record, indent=1) + "\n", encoding="utf-8"
    )
    frame = table.frame
    say(
        f"{len(frame):,} decisions x {len(table.units)} features of {frame['symbol'].nunique()} "
        f"contracts, {frame['ts'].min():%F %H:%M} to {frame['ts'].max():%F %H:%M}; "
        f"{len(findings)} kinds of irregularity counted in features.json"
    )
    return path


def _data_entries(root: Path, feature_set: FeatureSet, overrides: list[str]) -> Data:
    """Say what to read: what ``--set data.*`` names, else what lies in the folder and fits."""
    named = [text for text in overrides if text.startswith("data.")]
    raw: dict[str, object] = {}
    if not any(text.startswith(("data.bars", "data.book=")) for text in named):
        wanted = {"bars": True, "book": feature_set.book, "trades": feature_set.trades}
        raw = {
            table: entries
            for table, use in wanted.items()
            if use and (entries := _entries(root, table, feature_set.grid.interval))
        }
        if not raw and any(root.glob(f"*{SUFFIX}")):
            raw = {"book" if feature_set.book else "bars": ["."]}
        if feature_set.book and "book" in raw:
            raw.pop("bars", None)
    if not raw and not named:
        raise InputError(
            f"{root} holds neither bars/ nor book/ nor Parquet files; name what to read with "
            "--set data.bars=FOLDER or --set data.book=FOLDER"
        )
    return validate_spec(apply_overrides({"data": raw}, named)["data"], Data, "data")


def _entries(root: Path, table: str, interval: timedelta) -> list[str]:
    """Folders below ``root/table`` with Parquet files; bars only at the feature set's interval."""
    folder = root / table
    if not folder.is_dir():
        return []
    if any(folder.glob(f"*{SUFFIX}")):
        return [table]
    entries = []
    for path in sorted(folder.iterdir()):
        first = min(path.glob(f"*{SUFFIX}"), default=None) if path.is_dir() else None
        if first is None:
            continue
        if table == "bars" and usual_step(first) != interval:
            say(f"left out: {path} (its bars are not {format_duration(interval)} apart)")
            continue
        entries.append(f"{table}/{path.name}")
    return entries
