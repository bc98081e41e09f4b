"""Time zones: times that are compared all have one, or none has."""

from datetime import datetime, time

from notetune.errors import DataError


class Zones:
    """The times of the notes of one source, and of what is foretold from them.

    Where nothing is (not `are_compared`), a column may have times with and without a zone.
    """

    def __init__(self, *, are_compared: bool) -> None:
        self._are_compared = are_compared
        self._is_zoned: dict[str, bool] = {}

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
        self._is_zoned.setdefault(column, has_zone)
        others = [name for name, is_zoned in self._is_zoned.items() if is_zoned != has_zone]
        if not others or not self._are_compared:
            return moment.replace(tzinfo=None)
        other = column if column in others else others[0]
        zoned, naive = (column, other) if has_zone else (other, column)
        raise DataError(
            f"{where}: times in column {zoned} have a time zone and times in column {naive} have "
            "none, so nobody knows which are later; write all of them with their zone, as "
            "2164-10-23T21:09:00+01:00, or all without."
        )
