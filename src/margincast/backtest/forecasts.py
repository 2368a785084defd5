"""The ``forecasts`` table: a row for every test decision, horizon, side, level and model.

Whoever doubts a figure of a report can recompute it from this file and the bars.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from margincast.backtest.replay import Replay
from margincast.models.protocol import Panel, TailForecast

SCHEMA = pa.schema(
    [
        ("symbol", pa.dictionary(pa.int32(), pa.string())),
        ("ts", pa.timestamp("us", tz="UTC")),
        ("horizon_minutes", pa.int32()),
        ("side", pa.dictionary(pa.int32(), pa.string())),
        ("level", pa.float64()),
        ("forecast", pa.float64()),
        ("expected_shortfall", pa.float64()),
        ("model", pa.dictionary(pa.int32(), pa.string())),
        ("model_version", pa.dictionary(pa.int32(), pa.string())),
    ]
)


def write_forecasts(path: Path, replays: Mapping[int, Replay], *, version: str) -> int:
    """Write the forecasts of replays, by horizon in minutes; the file appears whole or not at all.

    ``model_version`` is ``version`` and the date of the refit that made the forecast. A forecast
    that is not known is null.

    Returns:
        Rows written.
    """
    partial = path.with_name(path.name + ".part")
    rows = 0
    with pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
        for horizon_minutes, replay in replays.items():
            versions = [f"{version}@{fold.start:%Y-%m-%dT%H:%M}" for fold in replay.folds]
            for model, forecast in replay.forecasts.items():
                for table in _tables(
                    replay.panel,
                    forecast,
                    replay.fold_of,
                    model=model,
                    versions=versions,
                    horizon_minutes=horizon_minutes,
                ):
                    writer.write_table(table)
                    rows += table.num_rows
    partial.replace(path)
    return rows


def _tables(
    panel: Panel,
    forecast: TailForecast,
    fold_of: "np.ndarray[tuple[int], np.dtype[np.intp]]",
    *,
    model: str,
    versions: list[str],
    horizon_minutes: int,
) -> Iterator[pa.Table]:
    n = len(panel)
    names, codes = np.unique(panel.frame["symbol"].to_numpy(dtype=str), return_inverse=True)
    symbol = _dictionary(codes, list(names))
    ts = pa.array(panel.decided, pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
    version = _dictionary(fold_of, versions)
    for i, side in enumerate(forecast.sides):
        for j, level in enumerate(forecast.levels):
            shortfall = forecast.expected_shortfall
            yield pa.Table.from_arrays(
                [
                    symbol,
                    ts,
                    pa.array(np.full(n, horizon_minutes, dtype=np.int32)),
                    _dictionary(np.zeros(n, dtype=np.int32), [side]),
                    pa.array(np.full(n, level)),
                    pa.array(forecast.quantiles[:, i, j], from_pandas=True),
                    pa.nulls(n, pa.float64())
                    if shortfall is None
                    else pa.array(shortfall[:, i, j], from_pandas=True),
                    _dictionary(np.zeros(n, dtype=np.int32), [model]),
                    version,
                ],
                schema=SCHEMA,
            )


def _dictionary(
    codes: "np.ndarray[tuple[int], np.dtype[np.integer]]", names: list[str]
) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(names))
