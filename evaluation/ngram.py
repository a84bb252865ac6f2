"""A language model by counting, the baseline of those that are trained."""

import math
from collections import Counter, defaultdict

from runtime.errors import UsageError


class NGram:
    """Probabilities of the next character after the `order` - 1 before it, by Witten and Bell's interpolation.

    p_k(c | h) = (n(hc) + t(h) p_{k-1}(c | h')) / (n(h) + t(h)): n counts, t(h) is how many different characters
    followed h, h' is h without its oldest character; p_0 is 1 / len(alphabet). IEEE Trans. Inf. Theory 37 (4), 1991,
    method C.
    """

    def __init__(self, text: str, order: int, alphabet: str):
        if order < 1:
            raise UsageError(f"order must be at least 1, got {order}.")
        self.order, self.size = order, len(alphabet)
        self.followers: dict[str, Counter[str]] = defaultdict(Counter)
        for length in range(order):
            for end in range(length, len(text)):
                self.followers[text[end - length : end]][text[end]] += 1
        self.totals = {history: counts.total() for history, counts in self.followers.items()}

    def probability(self, character: str, history: str) -> float:
        """Of a character after a history, of which the last order - 1 characters count."""
        found = 1 / self.size
        for length in range(min(self.order - 1, len(history)) + 1):
            own = history[len(history) - length :]
            if own not in self.totals:
                break  # longer histories were not seen either
            counts = self.followers[own]
            found = (counts[character] + len(counts) * found) / (self.totals[own] + len(counts))
        return found

    def bits(self, text: str) -> float:
        """The mean of -log2 p over the characters of a text, each after those before it in the text."""
        width = self.order - 1
        logs = (math.log2(self.probability(text[i], text[max(0, i - width) : i])) for i in range(len(text)))
        return -sum(logs) / len(text)
