"""Evaluate many features at once, each thing that several of them hang on once only.

Half of the features of a margin stand on the same few log returns, ranges and own scales. Polars
shares repeated arithmetic of a lazy query but no rolling statistic and nothing that stands on one,
and its default engine cuts rolling sums at places that hang on the number of rows. Here the
repeated parts become columns, stage by stage, of selects that run eagerly.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from typing import Any

import polars as pl
from polars.expr.meta import ExprMetaNameSpace

_INPUTS = {
    "BinaryExpr": ("left", "right"),
    "Function": ("input",),
    "Ternary": ("predicate", "truthy", "falsy"),
    "Cast": ("expr",),
}
"""Expressions that read their inputs row by row of the same table, as Polars serialises them.

What is inside any other (``over``, an aggregation, a filter) may see other rows: it is left whole.
"""


def select_sharing(
    frame: pl.DataFrame, kept: Sequence[str | pl.Expr], expressions: Sequence[pl.Expr]
) -> pl.DataFrame:
    """Select expressions as ``frame.select(*kept, *expressions)`` does, with less work.

    The same operations run on the same columns, so the values are the same; only a constant of 17
    digits may differ in its last bit, once and for all, since expressions pass through JSON.

    Args:
        frame: rows sorted by time.
        kept: columns and expressions to select first, as they are.
        expressions: named expressions, each of one column as long as the table.
    """
    return _staged(tuple(expression.meta for expression in expressions)).select(frame, kept)


@dataclass(frozen=True)
class Staged:
    """Expressions over one table, cut where they share a part.

    Attributes:
        stages: the shared parts; each stage is added as columns and reads those before it.
        expressions: the expressions themselves, over the table and the shared parts.
    """

    stages: tuple[tuple[pl.Expr, ...], ...]
    expressions: tuple[pl.Expr, ...]

    @classmethod
    def of(cls, expressions: Sequence[pl.Expr]) -> "Staged":
        """Find what named expressions share."""
        parts = _Parts()
        roots = [parts.add(_parsed(expression.meta.undo_aliases())) for expression in expressions]
        stages = parts.share(roots)
        named = (
            _expression(parts.written[root]).alias(expression.meta.output_name())
            for root, expression in zip(roots, expressions, strict=True)
        )
        return cls(stages, tuple(named))

    def select(self, frame: pl.DataFrame, kept: Sequence[str | pl.Expr]) -> pl.DataFrame:
        """Select over many rows: the parts of a stage before the next."""
        # eager and not lazy: the default engine of a lazy query cuts a rolling sum into pieces at
        # places that hang on the number of rows, so bars to come would move the last bit of earlier
        # features
        for stage in self.stages:
            frame = frame.with_columns(stage)
        return frame.select(*kept, *self.expressions)

    def query(self, frame: pl.DataFrame, kept: Sequence[str | pl.Expr]) -> pl.LazyFrame:
        """Select as one query over few rows, to be run by :func:`run`: planning takes the time."""
        rows = frame.lazy()
        for stage in self.stages:
            rows = rows.with_columns(stage)
        return rows.select(*kept, *self.expressions)


def run(query: pl.LazyFrame) -> pl.DataFrame:
    """Run a query step by step as it is written, each step over all rows, as eager frames do."""
    return query.collect(engine="in-memory", optimizations=pl.QueryOptFlags.none())


@lru_cache(maxsize=64)
def _staged(expressions: tuple[ExprMetaNameSpace, ...]) -> Staged:
    # it takes some milliseconds for a hundred features, which a stream cannot spend at every bar;
    # metas because they compare by content, where expressions compare row by row
    return Staged.of([expression.as_expression() for expression in expressions])


class _Parts:
    """Every distinct part of some expressions, inputs before what reads them.

    Attributes:
        written: each part as Polars serialises it, over the shared columns once they are known.
    """

    def __init__(self) -> None:
        self.written: list[Any] = []
        self._inputs: list[tuple[int, ...]] = []
        self._numbers: dict[str, int] = {}

    def add(self, node: Any) -> int:  # noqa: ANN401  # a JSON tree
        """Number an expression and its parts; equal parts have one number."""
        kind = next(iter(node)) if isinstance(node, dict) else ""
        inputs: tuple[int, ...] = ()
        if kind in _INPUTS:
            node = {kind: dict(node[kind])}
            inputs = tuple(self.add(part) for part in _taken(node))
            _put(node, [{"part": number} for number in inputs])
        key = json.dumps(node, sort_keys=True)
        if key not in self._numbers:
            self._numbers[key] = len(self.written)
            self.written.append(node)
            self._inputs.append(inputs)
        return self._numbers[key]

    def share(self, roots: Sequence[int]) -> tuple[tuple[pl.Expr, ...], ...]:
        """Write every part over the columns of what is read twice; gives these, by stage."""
        readers = [0] * len(self.written)
        for number in (*roots, *(part for inputs in self._inputs for part in inputs)):
            readers[number] += 1
        stage_of: list[int] = []
        stages: list[list[pl.Expr]] = []
        for number, inputs in enumerate(self._inputs):
            stage = max((stage_of[part] for part in inputs), default=0)
            if inputs:
                _put(self.written[number], [self.written[part] for part in inputs])
            if inputs and readers[number] > 1:
                part = _expression(self.written[number])
                # a constant or a total is not a column of the table
                if part.meta.is_length_preserving():
                    name = f"shared part {number}"
                    stages += [[]] if stage == len(stages) else []
                    stages[stage].append(part.alias(name))
                    self.written[number] = _parsed(pl.col(name))
                    stage += 1
            stage_of.append(stage)
        return tuple(tuple(stage) for stage in stages)


def _parsed(expression: pl.Expr) -> Any:  # noqa: ANN401  # a JSON tree
    return json.loads(expression.meta.serialize(format="json"))


def _expression(node: Any) -> pl.Expr:  # noqa: ANN401  # a JSON tree
    return pl.Expr.deserialize(StringIO(json.dumps(node)), format="json")


def _taken(node: dict[str, Any]) -> list[Any]:
    """Inputs of a node, in order."""
    ((kind, body),) = node.items()
    inputs = [body[slot] for slot in _INPUTS[kind]]
    return inputs[0] if kind == "Function" else inputs


def _put(node: dict[str, Any], inputs: list[Any]) -> None:
    """Give a node other inputs, in order."""
    ((kind, body),) = node.items()
    body |= (
        {"input": inputs} if kind == "Function" else dict(zip(_INPUTS[kind], inputs, strict=True))
    )
