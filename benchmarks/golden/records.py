"""The shared golden records: values that published implementations give, with their inputs."""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from margincast.core.types import FloatArray

Record = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One number.

    Attributes:
        family: our function and the package it is compared with.
        record: identifier of the golden record.
        quantity: which number of it.
        ours: what we compute.
        reference: what it says.
        simulated: whether either is drawn at random, or searched for at random; differences of
            such numbers are absolute.
    """

    family: str
    record: str
    quantity: str
    ours: float
    reference: float
    simulated: bool = False

    @property
    def difference(self) -> float:
        """Relative to the reference, or to 1e-6 where that is smaller; absolute if simulated."""
        distance = abs(self.ours - self.reference)
        return distance if self.simulated else distance / max(abs(self.reference), 1e-6)


def rows_of(
    family: str,
    record: Record,
    pairs: dict[str, tuple[float, float | None]],
    *,
    simulated: bool = False,
) -> Iterator[Row]:
    """Yield a row for each number that the record knows."""
    for quantity, (ours, reference) in pairs.items():
        if reference is not None:
            yield Row(
                family, record["id"], quantity, float(ours), float(reference), simulated=simulated
            )


def records(
    golden: Path, file: str, *wanted: str, key: str = "function", having: str = ""
) -> list[Record]:
    """Return the records of a file whose key is one of those wanted and whose text has a part.

    Records of what a package does where the statistic does not exist are left out.
    """
    every = json.loads((golden / file).read_text(encoding="utf-8"))["records"]
    return [
        record
        for record in every
        if record.get(key) in wanted
        and not record.get("degenerate")
        and having in json.dumps(record)
    ]


@functools.cache
def read_table(path: Path) -> pd.DataFrame:
    """Read an input once."""
    return pd.read_csv(path)


def table_of(golden: Path, record: Record) -> pd.DataFrame:
    """Return a record's input with its selection of rows."""
    data = record["data"]
    table = read_table(golden / data["file"])
    rows = data.get("rows", "all")
    if last := re.fullmatch(r"last (\d+)", rows):
        return table.iloc[-int(last[1]) :]
    if first := re.match(r"from row (\d+)", rows):
        return table.iloc[int(first[1]) - 1 :]
    return table


def columns_of(
    golden: Path, record: Record, *kinds: str, model: str = ""
) -> tuple[FloatArray, ...]:
    """Return the losses and a model's columns of the record's level, positive losses."""
    data, table = record["data"], table_of(golden, record)
    model = model or data["model"]
    names = ["loss", *(f"{model}_{kind}_{round(data['level'] * 1000)}" for kind in kinds)]
    return tuple(table[name].to_numpy(np.float64) for name in names)
