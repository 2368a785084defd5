"""The tables of a publication as bytes: margin levels, what they were made of, what they leave.

Responsible for getting every value back as it was, to the last bit. The same values give the same
bytes.
"""

import io
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from margincast.core.types import SIDES, FloatArray, Times
from margincast.data.writing import arrow_table
from margincast.margin.background import Background, Remembered
from margincast.margin.beside_maintenance import InitialInputs
from margincast.margin.chain import Memory
from margincast.margin.level_inputs import LevelInputs
from margincast.margin.notice import InForce
from margincast.margin.open_interest import OpenInterestShares

ROWS_A_PART = 20_000
"""A larger table is cut, between contracts, into several files."""
LEVELS = "levels"
CONTRACTS = "inputs/contracts.parquet"
ROWS = "inputs/rows.parquet"
AFTER = "after.parquet"

Read = Callable[[str], bytes]
"""Gives the content of a file of a publication."""


def levels_files(levels: pd.DataFrame) -> dict[str, bytes]:
    """Return a table of margin levels as files, by path: whole contracts, in their order."""
    starts = np.flatnonzero(levels["symbol"].ne(levels["symbol"].shift()).to_numpy())
    part = starts // ROWS_A_PART
    first = starts[np.append(True, np.diff(part) > 0)[: len(starts)]] if len(starts) else [0]
    edges = [*first, len(levels)]
    return {
        f"{LEVELS}/{number:05}.parquet": parquet_bytes(levels.iloc[start:end])
        for number, (start, end) in enumerate(pairwise(edges))
    }


def read_levels(contents: list[bytes]) -> pd.DataFrame:
    """Read the files of :func:`levels_files` back."""
    table: pd.DataFrame = pa.concat_tables([arrow_of(one) for one in contents]).to_pandas()
    return table.astype({"override_line": "Int64"})


def inputs_files(inputs: LevelInputs) -> dict[str, bytes]:
    """Return what levels were made of as files, by path."""
    contracts: dict[str, Any] = {
        "symbol": np.array(inputs.symbols, dtype=object),
        "reason": inputs.reasons,
        "data_as_of": inputs.data_as_of,
    }
    unknown = np.full(len(inputs.symbols), np.nan)
    for number, side in enumerate(SIDES):
        contracts[f"forecast_{side}"] = inputs.forecasts[:, number]
        contracts[f"initial_forecast_{side}"] = inputs.initial.forecasts.get(side, unknown)
    shares = inputs.initial.open_interest
    if shares is not None:
        contracts |= {
            "open_interest_usd": shares.usd,
            "open_interest_share": shares.share,
            "open_interest_reason": shares.reason,
        }
    background = inputs.background
    rows = {
        "at": np.full(len(inputs.costs), background.at),
        "cost": inputs.costs,
        "cost_reason": inputs.cost_reasons,
        "long_run": background.long_run,
        "stressed": background.stressed,
        **dict(_remembered_columns(background.remembered)),
    }
    return {
        CONTRACTS: parquet_bytes(pd.DataFrame(contracts)),
        ROWS: parquet_bytes(pd.DataFrame(rows)),
    }


def read_inputs(read: Read) -> LevelInputs:
    """Read the files of :func:`inputs_files` back."""
    contracts, rows = arrow_of(read(CONTRACTS)), arrow_of(read(ROWS))
    shares = None
    if "open_interest_usd" in contracts.column_names:
        shares = OpenInterestShares(
            _floats(contracts, "open_interest_usd"),
            _floats(contracts, "open_interest_share"),
            _texts(contracts, "open_interest_reason"),
        )
    remembered = read_remembered(rows)
    return LevelInputs(
        tuple(contracts["symbol"].to_pylist()),
        np.stack([_floats(contracts, f"forecast_{side}") for side in SIDES], axis=1),
        _times(contracts, "data_as_of"),
        _texts(contracts, "reason"),
        _floats(rows, "cost"),
        _texts(rows, "cost_reason"),
        Background.of(
            _times(rows, "at")[0], remembered, _floats(rows, "long_run"), _floats(rows, "stressed")
        ),
        InitialInputs(
            {side: _floats(contracts, f"initial_forecast_{side}") for side in SIDES}, shares
        ),
    )


def remembered_bytes(remembered: Remembered) -> bytes:
    """Return what a publication leaves behind as a file."""
    return parquet_bytes(pd.DataFrame(dict(_remembered_columns(remembered))))


def read_remembered(table: pa.Table) -> Remembered:
    """Read what a publication left behind."""

    def series(name: str) -> Iterator[tuple[Times, FloatArray]]:
        count = sum(column.startswith(f"{name}_at_") for column in table.column_names)
        for number in range(count):
            yield _times(table, f"{name}_at_{number}"), _floats(table, f"{name}_{number}")

    moments = _times(table, "memory_at")
    never = not len(moments) or np.isnat(moments[0])
    memory = Memory(
        None if never else moments[0],
        _floats(table, "buffer"),
        _floats(table, "limited"),
        _times(table, "limited_at"),
        _floats(table, "published"),
        tuple((at[0], rates) for at, rates in series("recent")),
    )
    in_force = InForce(_floats(table, "in_force"), tuple(series("announced")))
    return Remembered(memory, in_force, _floats(table, "fee_multiplier"))


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    """Return a frame as a Parquet file."""
    content = io.BytesIO()
    pq.write_table(arrow_table(frame), content)
    return content.getvalue()


def arrow_of(content: bytes) -> pa.Table:
    """Read a Parquet file."""
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        return file.read(use_threads=False)


def _remembered_columns(remembered: Remembered) -> Iterator[tuple[str, Any]]:
    memory, in_force = remembered.memory, remembered.in_force
    count = len(memory.buffer)
    never = np.datetime64("NaT", "us")
    yield "memory_at", np.full(count, never if memory.at is None else memory.at)
    yield "buffer", memory.buffer
    yield "limited", memory.limited
    yield "limited_at", memory.limited_at
    yield "published", memory.published
    for number, (at, rates) in enumerate(memory.recent):
        yield f"recent_at_{number}", np.full(count, at)
        yield f"recent_{number}", rates
    yield "in_force", in_force.mmr
    for number, (effective, rates) in enumerate(in_force.announced):
        yield f"announced_at_{number}", effective
        yield f"announced_{number}", rates
    yield "fee_multiplier", remembered.fee_multiplier


def _floats(table: pa.Table, name: str) -> FloatArray:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def _times(table: pa.Table, name: str) -> Times:
    return np.asarray(table[name].to_numpy(), dtype="datetime64[us]")


def _texts(table: pa.Table, name: str) -> "np.ndarray[tuple[int], np.dtype[np.object_]]":
    return np.array(table[name].to_pylist(), dtype=object)
