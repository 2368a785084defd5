"""What the best quotes, and a walk into the book, say of the price: spreads and the microprice.

Half the spread is the least that closing a position costs, and enters the margin directly.
"""

from margincast.features.order_book.cost import walked_cost
from margincast.features.order_book.sides import FloatArray
from margincast.features.order_book.snapshots import Snapshots, book_feature


@book_feature("fraction", argument="nothing")
def relative_spread(book: Snapshots) -> FloatArray:
    """Quoted spread: best ask less best bid, in fractions of the mid; 0 where the book is locked.

    Known at every snapshot.
    """
    return (book.ask.price[0] - book.bid.price[0]) / book.mid


@book_feature("fraction")
def effective_spread(book: Snapshots, notional_usd: float) -> FloatArray:
    """Spread paid by buying and selling ``notional_usd`` at once, in fractions of the mid.

    :func:`cost_to_buy` plus :func:`cost_to_sell`: the quoted spread where the best level holds that
    much, more where the book must be walked. Null where either side is too short.
    """
    return walked_cost(book, book.ask, notional_usd) + walked_cost(book, book.bid, notional_usd)


@book_feature("fraction", argument="nothing")
def microprice_deviation(book: Snapshots) -> FloatArray:
    """Microprice relative to the mid, less one; the best prices weighted by the opposite size.

    Stoikov (2018) doi:10.1080/14697688.2018.1489139, its zeroth approximation. Known at every
    snapshot.
    """
    bid_size, ask_size = book.bid.size[0], book.ask.size[0]
    spread = (book.ask.price[0] - book.bid.price[0]) / book.mid
    # Half the spread times the imbalance is the same, and exactly 0 where the book is locked.
    return spread / 2 * (bid_size - ask_size) / (bid_size + ask_size)
