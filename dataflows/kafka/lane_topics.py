"""The topics with a partition for each lane: which a start refuses, and with which it goes on.

A lane writes to the partition of its own number alone, so partitions beyond the lanes stay empty.
Kafka cannot take partitions away: a store whose lanes have written there goes on without them. For
a new store they tell of a wrong number of lanes, which could not be put right later.
"""

from collections.abc import Iterator, Mapping

from dataflows.logs import log
from dataflows.settings import Settings


def lane_topic_faults(
    settings: Settings, counts: Mapping[str, int], *, begun: bool | None
) -> Iterator[str]:
    """Yield a line for each topic that a run writes to and that, by its partitions, it cannot use.

    begun says whether lanes of the store have written; None leaves that to who has the store.
    """
    letters = {settings.dead_letter_topic: "HEARTWHEEL_DEAD_LETTER_TOPIC"}
    for topic, variable in (settings.lane_topics | letters).items():
        if topic not in counts:
            yield (
                f"topic {topic} does not exist on {settings.bootstrap_servers}, or this user "
                f'may not see it; run "heartwheel topics create", or correct {variable}'
            )
    for topic in settings.lane_topics:
        found = counts.get(topic, settings.lanes)
        if found < settings.lanes or (found > settings.lanes and begun is False):
            yield (
                f"topic {topic} has {found} partition{'s' * (found > 1)}, not "
                f"{settings.lanes}: if it is empty (auto-created), delete it and run "
                '"heartwheel topics create"; else correct HEARTWHEEL_LANES'
            )


def warn_of_more(settings: Settings, topic: str, partitions: int, *, added: bool = False) -> None:
    """Say that a topic has more partitions than lanes, or was given them while a run goes on."""
    what = (
        "partitions were added to a topic that lanes write to"
        if added
        else "a topic that lanes write to has more partitions than there are lanes"
    )
    command = "migrate" if settings.route == "hash" else "reshard"
    log.warning(
        f"{what}: this run and later ones go on, and those beyond the lanes stay empty; "
        f"`heartwheel store {command} --lanes` makes a store with more lanes, after a clean stop, "
        "if more are wanted",
        topic=topic,
        partitions=partitions,
        lanes=settings.lanes,
    )
