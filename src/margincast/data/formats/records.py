"""What readers do with records that parsed but still say too little: sides, and rejected rows.

Order flow and liquidations enter a margin by their side, so a side is what the venue says or it is
not known; it is never guessed.
"""

import json

import polars as pl

from margincast.data.formats.format import ROW, Account

_SIDES = ("buy", "sell")
_NOT_SAID = ("unknown", "none", "")


def reject_rows(
    frame: pl.DataFrame, broken: pl.Expr, reason: str, account: Account
) -> pl.DataFrame:
    """Reject the rows for which ``broken`` is true and return the others.

    Args:
        frame: rows with :data:`~margincast.data.formats.format.ROW`.
        broken: which are faulty; never null.
        reason: the kind of fault.
        account: counts them.
    """
    faulty = frame.select(broken).to_series()
    if not faulty.any():
        return frame
    for row in frame.filter(faulty).iter_rows(named=True):
        number = int(row.pop(ROW))
        account.reject(number, reason, json.dumps(row, default=str, ensure_ascii=False))
    return frame.filter(~faulty)


def with_side(frame: pl.DataFrame, not_said: str, account: Account) -> pl.DataFrame:
    """Write the column ``side`` as ``buy``, ``sell`` or null where the source does not say.

    Args:
        frame: rows with a text column ``side``.
        not_said: name of the event of a row without a side.
        account: counts them, and the rejected rows whose side is something else.
    """
    lower = frame.with_columns(pl.col("side").str.to_lowercase())
    known = pl.col("side").is_in([*_SIDES, *_NOT_SAID])
    sound = reject_rows(
        lower,
        ~known.fill_null(value=True),
        "column 'side' is neither buy nor sell",
        account,
    )
    told = sound.with_columns(
        pl.when(pl.col("side").is_in(list(_SIDES))).then(pl.col("side")).alias("side")
    )
    account.note(not_said, told["side"].null_count())
    return told
