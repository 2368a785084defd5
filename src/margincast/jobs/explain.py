"""``margincast explain``: why a margin is what it is, and what moved it since another time."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from margincast.core.errors import InputError, MargincastError, did_you_mean
from margincast.core.types import SIDES
from margincast.jobs.explained import Explained, show
from margincast.jobs.forecast_lines import forecast_lines
from margincast.jobs.moment import moment_of
from margincast.jobs.setting import Setting
from margincast.jobs.situation import (
    Model,
    NoChampionError,
    Situation,
    load_model,
    situation_of,
)
from margincast.margin.change import Line, change_between
from margincast.margin.explanation import chain_of
from margincast.margin.schedule import require_policy_fits
from margincast.serving.champion import (
    moment_of_use,
    require_record,
    resolve_champion,
)
from margincast.serving.ledger import LEDGER, Ledger
from margincast.serving.margin_overrides import overrides_at
from margincast.serving.registry import Registry
from margincast.serving.scored import policy_hash
from margincast.serving.standing import standing_of
from margincast.specs.loading import find_workspace, load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy


@dataclass(frozen=True)
class Wanted:
    """Which margins are explained.

    Attributes:
        symbol: the contract.
        side: None for both.
        tier: number of the tier, from 1.
    """

    symbol: str
    side: str | None
    tier: int

    def rows(self, levels: pd.DataFrame, where: str) -> list[dict[str, object]]:
        """Return the rows that are wanted of a table of margin levels, by side.

        Raises:
            InputError: the table has none; says what it has.
        """
        sides = SIDES if self.side is None else (self.side,)
        if self.side is not None and self.side not in SIDES:
            raise InputError(f"{self.side!r} is no side; sides are {', '.join(SIDES)}")
        own = levels[levels["symbol"] == self.symbol]
        if own.empty:
            known = sorted(map(str, levels["symbol"].unique()))
            raise InputError(
                f"{where} has no margin of {self.symbol!r}{did_you_mean(self.symbol, known)}; it "
                f"has {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}"
            )
        found = own[own["side"].isin(sides) & (own["tier"] == self.tier)]
        if len(found) != len(sides):
            raise InputError(
                f"{self.symbol} has tiers 1 to {own['tier'].max()} in {where}, found {self.tier}"
            )
        return [{str(key): value for key, value in row.items()} for row in found.to_dict("records")]


def run(
    wanted: Wanted,
    spec: Path,
    data: Path | None,
    overrides: Sequence[str],
    *,
    at: str | None,
    since: str | None,
    policy_since: Path | None,
    version_since: int | None,
    cache: str | None,
    as_json: bool,
) -> list[Explained]:
    """Explain margins from the model, the data and the policy.

    Args:
        wanted: contract, side and tier.
        spec: the margin policy.
        data: folder that data paths start at.
        overrides: ``section.key=value`` texts, as of ``margincast score``.
        at: the moment, or ``now``; the newest time in the data when absent.
        since: an earlier moment, from which the change is split.
        policy_since: the policy that was in force then; the same if not given.
        version_since: the model version that set margins then; the ledger's champion of then if
            not given.
        cache: as of ``margincast score``.
        as_json: print JSON.

    Raises:
        InputError: arguments, policy or data that cannot be used.
        CheckFailedError: there is no model that may set margins.
    """
    if since is None and (policy_since is not None or version_since is not None):
        raise InputError("--policy-since and --version-since belong to --since; give it too")
    of_data = [text for text in overrides if text.startswith("data.")]
    changes = [text for text in overrides if text not in of_data]
    setting = Setting.of(spec, data, None, "explain", cache, keeps_features=False)
    now = _policy(spec, setting.workspace, changes)
    then = now if policy_since is None else _policy(policy_since, setting.workspace, ())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        models = _Models(Registry(now.policy.tracking.uri, setting.workspace), now.policy, folder)
        moment = None if at is None else moment_of(at)
        situation = situation_of(models.at(moment), setting, of_data)
        moment = moment or situation.newest
        after = _Levels(situation, moment, now, setting.workspace, stated=at is not None)
        if since is None:
            explained = [
                Explained(row, chain_of(row, now.policy), None)
                for row in wanted.rows(after.table, "this run")
            ]
        else:
            earlier = moment_of(since)
            if earlier >= moment:
                raise InputError(
                    f"--since {earlier:%F %H:%M} UTC must lie before the moment explained, "
                    f"{moment:%F %H:%M} UTC"
                )
            old = models.at(earlier, version_since)
            of_then = situation
            if old.version != situation.model.version:
                of_then = situation_of(old, setting, of_data)
            explained = _changes(wanted, after, (of_then, earlier, then), setting.workspace)
    show(explained, now.policy.name, as_json=as_json)
    return explained


def run_on_tables(
    wanted: Wanted, levels: Path, against: Path | None, spec: Path | None, *, as_json: bool
) -> list[Explained]:
    """Explain margins from the numbers of a written table alone.

    Args:
        wanted: contract, side and tier.
        levels: ``margin_levels.parquet``.
        against: an earlier one, from which the change is split.
        spec: the policy that made the later one, for words; not needed.
        as_json: print JSON.

    Raises:
        InputError: tables or policy that cannot be used.
    """
    table = _read(levels)
    policy = None
    if spec is not None:
        chosen = _policy(spec, find_workspace(spec), ())
        policy = chosen.policy
        if set(table["policy_hash"]) != {policy_hash(policy, chosen.schedule)}:
            raise InputError(
                f"{levels} was made by another policy or base schedule than {spec}; give the files "
                "of then, or leave the policy out"
            )
    rows = wanted.rows(table, str(levels))
    explained = [Explained(row, chain_of(row, policy), None) for row in rows]
    if against is not None:
        earlier = wanted.rows(_read(against), str(against))
        explained = [
            Explained(one.row, one.chain, change_between(before, one.row), before)
            for one, before in zip(explained, earlier, strict=True)
        ]
    show(explained, policy.name if policy is not None else "", as_json=as_json)
    return explained


@dataclass(frozen=True)
class _Policy:
    policy: MarginPolicy
    schedule: BaseSchedule


def _policy(spec: Path, workspace: Path, changes: Sequence[str]) -> _Policy:
    policy = load_spec(spec, MarginPolicy, list(changes))
    schedule = load_spec(workspace / policy.schedule.file, BaseSchedule)
    require_policy_fits(policy, schedule)
    return _Policy(policy, schedule)


class _Models:
    """The versions that set margins at some moments; each is loaded once."""

    def __init__(self, registry: Registry, policy: MarginPolicy, folder: Path) -> None:
        self._registry = registry
        self._policy = policy
        self._folder = folder
        self._loaded: dict[int, Model] = {}

    def at(self, moment: datetime | None, version: int | None = None) -> Model:
        """Return a version: the one named, else the champion of a moment by the ledger.

        Before the ledger's first champion, and without a moment, it is the present one.
        """
        name = self._policy.model.registered_model
        try:
            entries = self._registry.ledger.read()
            if version is None and moment is not None:
                then = [entry for entry in entries if entry.instant <= moment]
                holder = standing_of(then, name).champion
                version = None if holder is None else holder.version
            if version is not None and version in self._loaded:
                return self._loaded[version]
            if version is None:
                champion = resolve_champion(self._registry, name)
                found, directory = champion.version, champion.bundle_directory
            else:
                found = self._registry.version(name, version)
                require_record(found, standing_of(entries, name))
                folder = self._folder / str(version)
                folder.mkdir()
                directory = self._registry.fetch(found, folder)
        except InputError:
            raise
        except MargincastError as error:
            raise NoChampionError(str(error)) from error
        return self._loaded.setdefault(found.version, load_model(found, directory, self._policy))


class _Levels:
    """The margin levels of a moment, with what they were made of."""

    def __init__(
        self,
        situation: Situation,
        moment: datetime,
        of: _Policy,
        workspace: Path,
        *,
        stated: bool = True,
    ) -> None:
        self.situation = situation
        self.moment = moment
        self.of = of
        self.decisions = situation.decisions_at(moment)
        entries = Ledger(workspace / LEDGER).read()
        used = moment if stated else moment_of_use(entries)
        by_hand = overrides_at(entries, of.policy, used)
        self.table = situation.levels_at(
            moment, of.policy, of.schedule, by_hand, decisions=self.decisions
        )


def _changes(
    wanted: Wanted, after: _Levels, since: tuple[Situation, datetime, _Policy], workspace: Path
) -> list[Explained]:
    """Split the change of every row: model, policy file, then the steps from then to now."""
    old, earlier, then = since
    stages: list[tuple[Line | None, _Levels]] = []
    published = _Levels(old, earlier, then, workspace)
    stages.append((None, published))
    if old is not after.situation:
        what = f"{old.model.version} -> {after.situation.model.version}"
        stages.append(
            (Line("model", what, 0.0), _Levels(after.situation, earlier, then, workspace))
        )
    if then is not after.of:
        what = f"{then.policy.name} -> {after.of.policy.name}"
        stages.append(
            (
                Line("policy file", what, 0.0),
                _Levels(after.situation, earlier, after.of, workspace),
            )
        )
    rows = [wanted.rows(levels.table, f"{earlier:%F %H:%M} UTC") for _, levels in stages]
    explained = []
    for number, row in enumerate(wanted.rows(after.table, f"{after.moment:%F %H:%M} UTC")):
        path = [float(str(of_stage[number]["mmr"])) for of_stage in rows]
        first = [
            Line(line.cause, line.what, path[place] - path[place - 1])
            for place, (line, _) in enumerate(stages)
            if line is not None
        ]
        before, base = rows[-1][number], stages[-1][1]
        lines = forecast_lines(
            after.situation.model.bundle.forecaster,
            after.of.policy,
            (base.decisions.unseen, before),
            (after.decisions.unseen, row),
        )
        change = change_between(before, row, forecast=lines, first=first, start=path[0])
        explained.append(Explained(row, chain_of(row, after.of.policy), change, rows[0][number]))
    return explained


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a margin_levels.parquet of `score`")
    table = pd.read_parquet(path)
    missing = [name for name in ("symbol", "side", "tier", "step_fallback") if name not in table]
    if missing:
        raise InputError(
            f"{path} is no table of margin levels with their steps: {', '.join(missing)} missing"
        )
    return table
