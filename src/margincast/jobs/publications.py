"""``margincast publications``: what was put in force, compared, put in force again, replayed."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from margincast.core.errors import InputError, MargincastError, did_you_mean
from margincast.core.types import SIDES
from margincast.jobs.by_hand import overrides_in_force
from margincast.jobs.console import output, say
from margincast.jobs.moment import moment_of
from margincast.jobs.person import acting_person
from margincast.jobs.publish import print_changes, say_published
from margincast.jobs.tables import margin_table
from margincast.margin.explanation import chain_of, percent
from margincast.models.catalogue import LOADERS
from margincast.serving.bundle import Bundle, read_bundle
from margincast.serving.publications.changes import Changes, changes_between
from margincast.serving.publications.decisions import forecasts_again
from margincast.serving.publications.publication import DECISIONS, Publication, folder_name
from margincast.serving.publications.record import Record
from margincast.serving.publications.replaying import Replayed, replayed
from margincast.serving.publications.reverting import revert as put_back
from margincast.serving.publications.store import PUBLICATIONS, PublicationStore, store_of
from margincast.serving.publications.verifying import damages
from margincast.serving.registry import Registry

MOST_DIFFERENCES = 20


def show_all(workspace: Path, policy: str | None, *, as_json: bool) -> None:
    """Print every publication of a policy, or of all.

    Raises:
        InputError: nothing of the policy was published.
        PublicationError: one is missing or was changed.
    """
    names = _published(workspace) if policy is None else [_known(workspace, policy)]
    records = [record for name in names for record in store_of(workspace, name).records()]
    if as_json:
        _print_json([_listed(record) for record in records])
        return
    if not records:
        output.print("nothing was ever published: margincast score POLICY.toml --publish")
        return
    table = Table(box=SIMPLE_HEAD, padding=0)
    for heading in ("policy", "number", "for (UTC)", "published (UTC)", "by", "levels", "model"):
        table.add_column(heading, no_wrap=heading != "by")
    table.add_column("what and why", overflow="fold")
    for record in records:
        table.add_row(
            record.policy,
            folder_name(record.number),
            f"{record.at:%F %H:%M}",
            f"{record.published_at:%F %H:%M:%S}",
            record.by,
            f"{record.levels:,}",
            record.origin.model_version,
            _what(record),
        )
    output.print(table)


def verify(workspace: Path, policy: str | None) -> bool:
    """Read every file of every publication of a policy, or of all, and say what is damaged.

    Returns:
        Whether all is as it was published.

    Raises:
        InputError: nothing of the policy was published.
    """
    sound = True
    for name in _published(workspace) if policy is None else [_known(workspace, policy)]:
        store = store_of(workspace, name)
        found = damages(store)
        for problem in found:
            say(problem)
        if found:
            sound = False
            continue
        records = store.records()
        if records:
            output.print(
                f"{name}: {len(records)} publication(s) verified, head {records[-1].digest}",
                soft_wrap=True,
            )
    return sound


def show(workspace: Path, policy: str | None, number: int, *, as_json: bool) -> None:
    """Print one publication.

    Raises:
        InputError: there is none of this number.
        PublicationError: it was changed.
    """
    found = _store(workspace, policy).read(number)
    record = found.record
    if as_json:
        levels = json.loads(found.levels.to_json(orient="records", date_format="iso"))
        _print_json({**_listed(record), "levels": levels})
        return
    texts = {
        "publication": f"{found.name} of {record.policy}, {record.kind}",
        "for": f"{record.at:%F %H:%M} UTC",
        "published": f"{record.published_at:%F %H:%M:%S} UTC by {record.by}",
        "reason": _what(record),
        "model": record.origin.model_version,
        "data as of": "none" if record.data_as_of is None else f"{record.data_as_of:%F %H:%M} UTC",
        "set by hand": ", ".join(f"{one.subject}: {one.text}" for one in found.overrides) or "none",
        "digest": record.digest,
        "folder": str(found.folder),
    }
    for name, text in texts.items():
        output.print(f"{name:12} {text}", markup=False, soft_wrap=True)
    output.print(margin_table(found.levels))


def diff(workspace: Path, policy: str | None, first: int, second: int, *, as_json: bool) -> Changes:
    """Print what changed from one publication to another.

    Raises:
        InputError: there is none of one of the numbers.
        PublicationError: one of them was changed.
    """
    store = _store(workspace, policy)
    before, after = store.read(first), store.read(second)
    section = after.policy.changes
    threshold = None if section is None else section.notable
    changes = changes_between(before.levels, after.levels, threshold)
    if as_json:
        moved = changes.rows[(changes.rows["change"] != 0.0) | changes.rows["notable"]]
        _print_json(json.loads(moved.to_json(orient="records")))
        return changes
    print_changes(changes, f"publication {before.name}")
    specs = (("policy", before.policy, after.policy), ("schedule", before.schedule, after.schedule))
    for name, one, other in specs:
        if one.digest() != other.digest():
            say(f"the {name} is another one")
    if before.origin.model_version != after.origin.model_version:
        say(f"model {before.origin.model_version} -> {after.origin.model_version}")
    return changes


def revert(
    workspace: Path,
    policy: str | None,
    number: int,
    *,
    reason: str,
    by: str | None,
    at: str | None,
) -> Publication:
    """Put an earlier publication in force again.

    Raises:
        CheckFailedError: its margins break what holds today.
        InputError: there is none of this number, or it is in force.
        PublicationError: a publication was changed.
    """
    store = _store(workspace, policy)
    moment = None if at is None else moment_of(at)
    by_hand = overrides_in_force(workspace, store.read(number).policy, moment)
    last = store.latest()
    made = put_back(
        store, number, at=moment, overrides=by_hand, by=acting_person(by), reason=reason
    )
    assert last is not None, "a publication was put in force again"
    away = sorted(set(store.read(number).symbols) - set(made.symbols))
    if away:
        say(f"delisted since, not brought back: {', '.join(away)}")
    print_changes(changes_between(last.levels, made.levels), f"publication {last.name}")
    say_published(made)
    return made


def replay(workspace: Path, policy: str | None, number: int, symbol: str | None) -> bool:
    """Compute a publication again and say whether every value is the same.

    Args:
        workspace: folder with the publications.
        policy: name of the policy.
        number: of the publication.
        symbol: contract whose steps are shown.

    Raises:
        InputError: there is no such publication or contract.
        PublicationError: it was changed.
    """
    found = replayed(_store(workspace, policy), number)
    publication = found.publication
    if symbol is not None:
        _print_steps(found, symbol)
    forecast = _replay_forecasts(workspace, publication)
    values = f"{len(found.levels):,} levels of {len(publication.symbols):,} contracts"
    if found.equal:
        exact = "byte by byte" if found.same_bytes else "every value to the last bit"
        output.print(
            f"publication {publication.name} made again from its recorded inputs: {values}, the "
            f"same {exact}",
            soft_wrap=True,
        )
        return forecast
    for row in found.differing.head(MOST_DIFFERENCES).to_dict(orient="records"):
        say(
            f"{row['symbol']} {row['side']} tier {row['tier']}, {row['column']}: published "
            f"{row['published']}, replayed {row['replayed']}"
        )
    if found.memory_differs:
        say("what it leaves behind for the next publication is not the same")
    libraries = publication.record.libraries
    say(
        f"publication {publication.name} is not the same when made again ({values}): "
        f"{len(found.differing):,} values differ; it was made with "
        f"{', '.join(f'{name} {version}' for name, version in libraries.items())}"
    )
    return False


def _replay_forecasts(workspace: Path, publication: Publication) -> bool:
    """Make the forecasts again where the model is here; False where they differ."""
    if publication.record.reverts_to is not None or DECISIONS not in publication.record.files:
        return True
    version = publication.origin.model_version
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = _bundle_of(workspace, publication, Path(folder))
        except MargincastError as error:
            say(f"forecasts are taken as recorded, {version} cannot be asked: {error}")
            return True
        found = forecasts_again(publication, bundle)
    assert found is not None, "the publication names its decisions"
    made, count = found
    recorded = publication.inputs.forecasts
    same = (made == recorded) | (np.isnan(made) & np.isnan(recorded))
    if same.all():
        output.print(
            f"forecasts of {len(made):,} contracts made again by {version} from {count:,} recorded "
            "decisions: the same to the last bit",
            soft_wrap=True,
        )
        return True
    for contract, side in np.argwhere(~same)[:MOST_DIFFERENCES].tolist():
        say(
            f"{publication.symbols[contract]} {SIDES[side]}: forecast recorded "
            f"{recorded[contract, side]!r}, made again {made[contract, side]!r}"
        )
    say(f"{int((~same).sum()):,} forecasts of {version} are not the same when made again")
    return False


def _bundle_of(workspace: Path, publication: Publication, folder: Path) -> Bundle:
    """Return the model behind a publication: as kept here, else from MLflow."""
    digest = publication.record.bundle_digest
    name, _, version = publication.origin.model_version.rpartition("/")
    kept = workspace / "mlruns" / "last_good" / name / digest[:16]
    if kept.is_dir():
        return read_bundle(kept, LOADERS, digest)
    registry = Registry(publication.policy.tracking.uri, workspace)
    fetched = registry.fetch(registry.version(name, int(version)), folder)
    return read_bundle(fetched, LOADERS, digest)


def _print_steps(found: Replayed, symbol: str) -> None:
    levels = found.levels[found.levels["symbol"] == symbol]
    if levels.empty:
        known = found.publication.symbols
        raise InputError(
            f"{symbol!r} is not in publication {found.publication.name}"
            f"{did_you_mean(symbol, known)}"
        )
    for row in levels.to_dict(orient="records"):
        table = Table(
            title=f"{symbol} {row['side']}, tier {row['tier']}: {percent(row['mmr'])}",
            box=SIMPLE_HEAD,
            padding=0,
        )
        for heading in ("step", "MMR after"):
            table.add_column(heading)
        table.add_column("why", overflow="fold")
        for step in chain_of(
            {str(name): value for name, value in row.items()}, found.publication.policy
        ):
            table.add_row(step.name, percent(step.value_after), step.reason)
        output.print(table)


def _store(workspace: Path, policy: str | None) -> PublicationStore:
    if policy is not None:
        return store_of(workspace, _known(workspace, policy))
    names = _published(workspace)
    if len(names) == 1:
        return store_of(workspace, names[0])
    if not names:
        raise InputError(
            f"nothing was published in {workspace}; margincast score POLICY.toml --publish "
            "--reason TEXT does, --workspace names another folder"
        )
    raise InputError(f"several policies were published; name one: --policy {' | '.join(names)}")


def _known(workspace: Path, policy: str) -> str:
    names = _published(workspace)
    if policy not in names:
        raise InputError(
            f"nothing of policy {policy!r} was published{did_you_mean(policy, names)}; there are "
            f"{', '.join(names) or 'none'}"
        )
    return policy


def _published(workspace: Path) -> list[str]:
    folder = workspace / PUBLICATIONS
    return sorted(path.name for path in folder.glob("*/") if not path.name.startswith("."))


def _what(record: Record) -> str:
    if record.reverts_to is None:
        return record.reason
    return f"{folder_name(record.reverts_to)} again: {record.reason}"


def _listed(record: Record) -> dict[str, Any]:
    return {**record.body, "digest": record.digest}


def _print_json(value: object) -> None:
    output.print(json.dumps(value, indent=1), markup=False, soft_wrap=True)
