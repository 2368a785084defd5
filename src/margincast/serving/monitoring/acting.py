"""Whether an alarm may start a training job now: the guard rails, and nothing else.

Responsible for a monitor that runs every hour and does not train every hour. A job that is started
registers a model, which its gate judges; making it champion is left to a person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from margincast.core.time import format_duration
from margincast.specs.monitor import Acting, AlarmName, JobChoice


@dataclass(frozen=True)
class Decision:
    """What a monitor does about its alarms.

    Attributes:
        job: that is started; None for none.
        alarms: for which it is.
        reason: why it is, or why none is.
    """

    job: JobChoice | None
    alarms: tuple[AlarmName, ...]
    reason: str


def choose_job(
    acting: Acting,
    raised: Mapping[AlarmName, datetime],
    starts: Sequence[datetime],
    at: datetime,
    obstacles: Sequence[str],
) -> Decision:
    """Choose the job that alarms start, if any may start now.

    Args:
        acting: jobs and guard rails.
        raised: alarms that are raised, since when.
        starts: when jobs were started before, of whatever name.
        at: the moment.
        obstacles: why none may start whatever the alarms say, such as data that is too old.
    """
    for job in acting.jobs:
        due = tuple(
            name for name in job.alarms if name in raised and at - raised[name] >= job.after
        )
        if due:
            why = f"{job.name} is due for {', '.join(due)}"
            obstacle = _obstacle(acting, starts, at, obstacles)
            return (
                Decision(None, due, f"{why}, but {obstacle}")
                if obstacle
                else Decision(job, due, why)
            )
    if not raised:
        return Decision(None, (), "no alarm is raised")
    return Decision(
        None,
        (),
        f"no job is for {', '.join(sorted(raised))}, or it has not been raised long enough",
    )


def _obstacle(
    acting: Acting, starts: Sequence[datetime], at: datetime, obstacles: Sequence[str]
) -> str:
    """Say why no job may start; empty where one may."""
    if obstacles:
        return "; ".join(obstacles)
    last = max(starts, default=None)
    if last is not None and at - last < acting.cool_down:
        return (
            f"a job was started at {last:%F %H:%M} UTC and the cool-down of "
            f"{format_duration(acting.cool_down)} lasts until {last + acting.cool_down:%F %H:%M}"
        )
    recent = sum(at - start < acting.period for start in starts)
    if recent >= acting.starts_max:
        return (
            f"{recent} jobs were started within {format_duration(acting.period)}, and no more than "
            f"{acting.starts_max} may be"
        )
    return ""
