"""From a proposal to a publication: what a score would change, and putting it in force.

Responsible for the two steps ``margincast score`` ends with: the summary of what changes since the
last publication and why, and, only if asked, the publication.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from margincast.jobs.console import output, say
from margincast.jobs.person import acting_person
from margincast.margin.explanation import percent
from margincast.margin.override import Override
from margincast.models.protocol import Panel
from margincast.serving.publications.changes import Changes, changes_between
from margincast.serving.publications.decisions import keep_decisions
from margincast.serving.publications.publication import Publication
from margincast.serving.publications.store import PublicationStore, is_published
from margincast.serving.scored import Scored
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

MOST_MOVES = 5
"""Rises and falls that are shown."""


@dataclass(frozen=True)
class Proposal:
    """Margins that could be published.

    Attributes:
        scored: the levels.
        policy: that made them.
        schedule: its base schedule.
        overrides: margins set by hand that were applied.
        bundle_digest: identity of the model; empty where there was none.
        last: the publication they would follow; None where there is none.
        decisions: what the model was asked about, per horizon in minutes; None where there was no
            model.
    """

    scored: Scored
    policy: MarginPolicy
    schedule: BaseSchedule
    overrides: Sequence[Override]
    bundle_digest: str
    last: Publication | None
    decisions: Mapping[int, Panel] | None = None

    @property
    def published_already(self) -> bool:
        """Whether the publication in force is this very table."""
        return self.last is not None and is_published(
            self.last, self.scored, self.policy, self.schedule, self.overrides
        )


def say_changes(proposal: Proposal) -> Changes | None:
    """Print what would change since the last publication; None where nothing would."""
    last = proposal.last
    if last is None:
        say("nothing was published yet: all levels are new")
        return None
    if proposal.published_already:
        say(f"nothing changed since publication {last.name}")
        return None
    section = proposal.policy.changes
    threshold = None if section is None else section.notable
    changes = changes_between(last.levels, proposal.scored.levels, threshold)
    print_changes(changes, f"publication {last.name}")
    return changes


def publish(
    proposal: Proposal, store: PublicationStore, *, reason: str, by: str | None
) -> Publication | None:
    """Put a proposal in force; None where it is in force already.

    Raises:
        PublishedMeanwhileError: somebody else published since the proposal was made.
        InputError: it cannot be published.
    """
    if proposal.published_already:
        return None
    last, decisions = proposal.last, proposal.decisions
    made = store.publish(
        proposal.scored,
        policy=proposal.policy,
        schedule=proposal.schedule,
        overrides=proposal.overrides,
        by=acting_person(by),
        reason=reason,
        follows=0 if last is None else last.number,
        bundle_digest=proposal.bundle_digest,
        decisions=None if decisions is None else keep_decisions(store.folder, decisions),
    )
    say_published(made)
    return made


def say_published(made: Publication) -> None:
    """Say which number margins have."""
    output.print(
        f"published as {made.name}, in force from {made.at:%F %H:%M} UTC: {made.folder}",
        soft_wrap=True,
        markup=False,
    )


def print_changes(changes: Changes, since: str) -> None:
    """Print a summary of changes: counts, largest moves, and what to look at."""
    rises, falls = changes.rises, changes.falls
    texts = [f"{len(rises)} levels rise", f"{len(falls)} fall"]
    texts += [f"{changes.new} are new"] * bool(changes.new)
    if changes.gone:
        left = ", ".join(changes.contracts_gone)
        texts.append(f"{changes.gone} are published no more" + f" (all of {left})" * bool(left))
    output.print(f"since {since}: {', '.join(texts)}", markup=False, soft_wrap=True)
    for column in ("status", "binding_rule"):
        counts = changes.counts(column)
        moved = counts[counts["before"] != counts["after"]]
        if len(moved):
            text = ", ".join(
                f"{name} {row['before']} -> {row['after']}" for name, row in moved.iterrows()
            )
            output.print(f"{column.replace('_', ' ')}: {text}", markup=False, soft_wrap=True)
    moves = pd.concat([rises.head(MOST_MOVES), falls.head(MOST_MOVES)])
    if len(moves):
        output.print(moves_table(moves))
    if changes.notable and changes.threshold is not None:
        say(
            f"{changes.notable} notable changes: by {percent(changes.threshold)} or more, new, "
            "gone, or with another status"
        )


def moves_table(moves: pd.DataFrame) -> Table:
    """Return rows of a table of changes as they are printed."""
    table = Table(title="Largest changes", box=SIMPLE_HEAD, padding=0)
    for heading in ("contract", "side"):
        table.add_column(heading)
    for heading in ("tier", "MMR before", "after", "change"):
        table.add_column(heading, justify="right")
    table.add_column("most by")
    table.add_column("now set by", overflow="fold")
    for row in moves.to_dict(orient="records"):
        table.add_row(
            str(row["symbol"]),
            str(row["side"]),
            str(row["tier"]),
            percent(row["mmr_before"]),
            percent(row["mmr_after"]),
            f"{row['change']:+.1%}",
            f"{row['cause']} {100.0 * row['cause_points']:+.3g} %",
            f"{row['binding_rule_after']}: {row['reason_after']}",
            style="yellow" if row["notable"] else None,
        )
    return table
