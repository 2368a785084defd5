"""The spec of a column mapping: what the columns of a flat file are, one TOML file a kind of file.

Says what the numbers of a file mean before a margin is computed from them. Field names are those
of :class:`margincast.data.formats.mapping.ColumnMapping`, which checks them against the tables.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from margincast.specs.base import Duration, Spec, Texts


class MappedColumnSpec(Spec):
    """Where a canonical column comes from; written as text it is the source's column alone."""

    column: str = Field(min_length=1)
    times: float | None = Field(default=None, allow_inf_nan=False)
    values: dict[str, str] | None = Field(default=None, min_length=1)


def _to_column(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


class MappingSpec(Spec):
    """What the columns of a file are; what is left out is found by itself."""

    table: str
    venue: str = Field(min_length=1)
    symbol: str | None = Field(default=None, min_length=1)
    interval: Duration | None = None
    delimiter: Literal[",", ";", "\t", "|", " "] | None = None
    header: Texts | None = Field(default=None, min_length=1)
    time_format: str | None = Field(default=None, min_length=1)
    time_zone: str | None = Field(default=None, min_length=1)
    columns: Annotated[
        dict[str, Annotated[MappedColumnSpec, BeforeValidator(_to_column)]], Field(min_length=1)
    ]

    def fields(self) -> dict[str, Any]:
        """Return the values as ``margincast.data.formats.mapping.mapping_from`` takes them."""
        columns = {name: dict(column) for name, column in self.columns.items()}
        return {**dict(self), "columns": columns}
