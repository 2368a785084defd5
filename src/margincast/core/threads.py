"""How many threads a model may use; LightGBM's OpenMP collapses when cores are shared."""

import os


def available_threads() -> int:
    """Return ``OMP_NUM_THREADS`` where it is set, otherwise the cores this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
