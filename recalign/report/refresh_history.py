"""The refreshes of a nightly table as rows, a sentence and a curve, for terminal and UI."""

from recalign.artifacts.refreshes import Refresh, Refreshes
from recalign.report.drawing import MIST, PETROL, Axes, draw
from recalign.report.wording import TOO_FEW, interval


def refreshes_in_words(refreshes: Refreshes) -> str:
    """Where they stand, in a sentence."""
    last = refreshes.last
    if last is None:
        return f"refresh {refreshes.name} has not been made yet"
    told = f"refresh {len(refreshes.refreshes)} of {refreshes.name}: {last.users_listed} of "
    told += f"{last.users} users, {last.texts_written} texts written, {last.texts_kept} kept"
    return f"{told}; {_foreseen(last)}"


def _foreseen(refresh: Refresh) -> str:
    if refresh.drift is None:
        return "nothing to compare the one before with"
    one = refresh.drift
    reached = f"{one.ndcg:.4f} {interval(one.low, one.high)}".strip()
    return f"the one before reached NDCG@{one.k} {reached} on {one.users} users since"


def refresh_rows(refreshes: Refreshes) -> list[dict[str, str]]:
    """A row per refresh, oldest first; what it reached is in the row of the one after it."""
    rows = []
    for number, made in enumerate(refreshes.refreshes, start=1):
        drift = made.drift
        rows.append(
            {
                "refresh": str(number),
                "finished": f"{made.finished:%Y-%m-%d %H:%M:%S}",
                "users": f"{made.users_listed} of {made.users}",
                "texts written": str(made.texts_written),
                "texts kept": str(made.texts_kept),
                "seconds": f"{(made.finished - made.started).total_seconds():.1f}",
                "the one before": f"NDCG@{drift.k} {drift.ndcg:.4f}" if drift else "",
                "95 %": (interval(drift.low, drift.high) or TOO_FEW) if drift else "",
                "on users": str(drift.users) if drift else "",
                "policy": made.policy.name,
                "table": made.serving.name,
            }
        )
    return rows


def drift_curve(refreshes: Refreshes) -> str:
    """NDCG of every refresh on what was taken until the next, with its interval if it has one;
    "" without."""
    known = [(number, made.drift) for number, made in enumerate(refreshes.refreshes) if made.drift]
    if not known:
        return ""
    numbers = [number for number, _ in known]

    def paint(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for number, one in known:
            if one.low is not None and one.high is not None:
                axes.vlines(number, one.low, one.high, color=MIST, linewidth=5)
        axes.plot(numbers, [one.ndcg for _, one in known], "o-", color=PETROL)
        axes.set(title="NDCG on what was taken since", xlabel="refresh", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return draw(paint, "NDCG of each refresh on what was taken until the next one")
