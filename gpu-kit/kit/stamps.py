"""What kernels wrote of themselves: when each began and ended, by the device's clock."""

import array
from bisect import bisect_left


class Busy:
    """When a device was occupied by some kernels: intervals that neither touch nor overlap, in order."""

    def __init__(self, intervals):
        self.kernels = len(intervals)
        self.begins, self.ends, self._sums = [], [], [0]
        for begin, end in sorted(intervals):
            if self.ends and begin <= self.ends[-1]:
                self.ends[-1] = max(self.ends[-1], end)
            else:
                self.begins.append(begin)
                self.ends.append(end)
        for begin, end in zip(self.begins, self.ends):
            self._sums.append(self._sums[-1] + end - begin)

    def __bool__(self):
        return bool(self.begins)

    @property
    def first(self):
        return self.begins[0]

    @property
    def last(self):
        return self.ends[-1]

    def until(self, at):
        """Busy nanoseconds before an instant."""
        index = bisect_left(self.begins, at)
        if index == 0:
            return 0
        return self._sums[index] - max(self.ends[index - 1] - at, 0)

    def share(self, start, end):
        """Percent of a stretch in which the device was occupied."""
        return 100.0 * (self.until(end) - self.until(start)) / (end - start)

    def worst(self, start, end, window, share, step=10_000_000):
        """The largest difference of any window from a share, in points; None if no window fits."""
        at, worst = start, None
        while at + window <= end:
            off = abs(self.share(at, at + window) - share)
            worst = off if worst is None else max(worst, off)
            at += step
        return worst


def read(path):
    """The intervals of a file of stamps."""
    values = array.array("Q")
    with open(path, "rb") as file:
        values.frombytes(file.read())
    return [(begin, end) for begin, end in zip(values[::2], values[1::2]) if end >= begin > 0]


def launches(kernels, each):
    """The intervals of launches of `each` kernels one after the other, from the begin of the first to the end of the last."""
    kernels = sorted(kernels)
    groups = (kernels[at : at + each] for at in range(0, len(kernels), each))
    return [(group[0][0], group[-1][1]) for group in groups]
