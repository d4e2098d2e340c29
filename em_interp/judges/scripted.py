"""A judge that follows a table: a real implementation of the protocol, for tests and dry runs."""

from collections.abc import Mapping, Sequence

from em_interp.judges.base import Item, Reason, Verdict


class ScriptedJudge:
    """Answers by exact response text; a response that is not in the table is unscored (error)."""

    def __init__(self, table: Mapping[str, tuple[float, float]], name: str = "scripted") -> None:
        """`table`: response text to (aligned, coherent)."""
        self.table = dict(table)
        self.name = name

    def score(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict for each item, from the table."""
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Verdict:
        found = self.table.get(item.response)
        if found is None:
            return Verdict(item=item.id, judge=self.name, mode="table", unscored=Reason.ERROR)
        return Verdict(
            item=item.id, judge=self.name, mode="table", aligned=found[0], coherent=found[1]
        )
