"""Tests of exceedances beside the values that MATLAB's documentation prints, to five digits."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from benchmarks.golden.records import Row, records, rows_of

from margincast.backtest.var_tests.proportion import kupiec, normal_binomial
from margincast.backtest.var_tests.time_between import tuff
from margincast.backtest.var_tests.traffic_light import traffic_light


def rows(golden: Path) -> Iterator[Row]:
    """Yield every number that is printed for a sample that its counts describe."""
    for record in records(golden, "matlab_docs.json", "pof", "bin", "tl", "tuff", key="test"):
        if record["id"].startswith("bin_old_release"):
            continue  # one tail; see the golden folder's notes
        value, level, test = record["value"], record["var_level"], record["test"]
        position = np.arange(1, value["Observations"] + 1)
        first = value.get("FirstFailure", 1)
        failures = value.get("Failures", 1)
        hits = (position >= first) & (position < first + failures)
        pairs: dict[str, tuple[float, float | None]]
        if test == "tl":
            light = traffic_light(failures, value["Observations"], level)
            pairs = {
                "P(X <= x)": (light.cumulative_probability, value["Probability"]),
                "P(X >= x)": (light.tail_probability, value["TypeI"]),
            }
        else:
            tests = {"pof": kupiec, "bin": normal_binomial, "tuff": tuff}
            found = tests[test](hits, level)
            ending = "Bin" if test == "bin" else test.upper()
            statistic = value["ZScoreBin"] if test == "bin" else value[f"LRatio{ending}"]
            pairs = {
                "statistic": (found.statistic, statistic),
                "p": (found.p_value, value[f"PValue{ending}"]),
            }
        name = {"pof": "kupiec", "bin": "normal_binomial", "tl": "traffic_light", "tuff": "tuff"}
        yield from rows_of(f"{name[test]}, MATLAB (printed)", record, pairs)
