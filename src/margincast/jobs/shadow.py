"""The shadow on the champion's market: scored beside it, compared with it, never published."""

from collections.abc import Sequence
from dataclasses import replace

from margincast.jobs.setting import Setting
from margincast.jobs.situation import Situation, load_model, situation_of
from margincast.serving.registry import Registry
from margincast.serving.shadow import resolve_shadow
from margincast.specs.serving import MarginPolicy


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
