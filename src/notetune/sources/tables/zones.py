"""Time zones: times that are compared all have one, or none has."""

from datetime import datetime, time

from notetune.errors import DataError


class Zones:
    """The times of the notes of one source, and of what is foretold from them.

    Where nothing is (not `are_compared`), a column may have times with and without a zone.
    """

    def __init__(self, *, are_compared: bool) -> None:
        self._are_compared = are_compared
        self._first: tuple[str, bool] | None = None

    def without(
        self, moment: datetime | None, column: str, where: str, *, may_be_day: bool = False
    ) -> datetime | None:
        """A time as it is compared: in UTC where it had a zone.

        Args:
            moment: As `Record.time` gives it.
            column: Where it stands.
            where: The place of its row, for errors.
            may_be_day: Midnight without a zone is a day alone, which goes with times of either.

        Raises:
            DataError: If it has a zone and an earlier one had none, or the other way round.
        """
        if moment is None or (may_be_day and not moment.tzinfo and moment.time() == time.min):
            return moment
        has_zone = moment.tzinfo is not None
        first, had_zone = self._first = self._first or (column, has_zone)
        if has_zone == had_zone or not self._are_compared:
            return moment.replace(tzinfo=None)
        zoned, naive = (column, first) if has_zone else (first, column)
        raise DataError(
            f"{where}: times in column {zoned} have a time zone and times in column {naive} have "
            "none, so nobody knows which are later; write all of them with their zone, as "
            "2164-10-23T21:09:00+01:00, or all without."
        )
