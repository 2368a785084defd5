"""The shadow on the champion's market: scored beside it, compared with it, never published."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from margincast.core.errors import MargincastError
from margincast.data.writing import write_table
from margincast.jobs.console import say
from margincast.jobs.setting import Setting
from margincast.jobs.situation import Situation, load_model, situation_of
from margincast.serving.registry import Registry
from margincast.serving.shadow import resolve_shadow
from margincast.specs.serving import MarginPolicy

SHADOW_LEVELS = "shadow_levels.parquet"
"""What the shadow would set, beside the champion's levels."""


def shadow_situation(
    registry: Registry,
    policy: MarginPolicy,
    champion: Situation,
    setting: Setting,
    data_overrides: Sequence[str],
) -> Situation | None:
    """Return the shadow of a policy's model and the market it is asked about; None for none.

    Args:
        registry: where it is looked up.
        policy: the margin policy.
        champion: the champion's; its features are taken where the shadow has the same.
        setting: folders of the job.
        data_overrides: ``data.*`` texts of the command line.

    Raises:
        MargincastError: there is one, and it cannot be used; see
            :func:`~margincast.serving.shadow.resolve_shadow` and
            :func:`~margincast.jobs.situation.load_model`.
    """
    shadow = resolve_shadow(registry, policy.model.registered_model)
    if shadow is None:
        return None
    model = load_model(shadow.version, shadow.bundle_directory, policy)
    same = (
        model.feature_set.digest() == champion.model.feature_set.digest()
        and model.job.data == champion.model.job.data
    )
    if same:
        return replace(champion, model=model)
    return situation_of(model, setting, data_overrides)


def score_shadow(
    registry: Registry,
    policy: MarginPolicy,
    champion: Situation,
    setting: Setting,
    *,
    data_overrides: Sequence[str],
    levels_of: Callable[[Situation], pd.DataFrame],
) -> Path | None:
    """Write the margin levels the shadow would set; return where, None where there are none.

    The champion's margins do not wait for a shadow that is in trouble: that is only said. Levels of
    an earlier run are not left lying beside those of this one.

    Args:
        registry: see :func:`shadow_situation`, and so on.
        policy: the margin policy.
        champion: the champion's situation.
        setting: folders of the job.
        data_overrides: ``data.*`` texts of the command line.
        levels_of: makes the levels of a situation as the champion's were made.
    """
    path = setting.out / SHADOW_LEVELS
    path.unlink(missing_ok=True)
    try:
        shadow = shadow_situation(registry, policy, champion, setting, data_overrides)
        if shadow is None:
            return None
        levels = levels_of(shadow)
    except MargincastError as error:
        say(f"the shadow is not scored: {error}")
        return None
    write_table(levels, path)
    say(f"{shadow.model.version} as shadow, not to be published: {path}")
    return path
