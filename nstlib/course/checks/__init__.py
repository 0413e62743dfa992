"""Exercise checkers: ``checks.q01_1(my_gram)`` says what is right, or what to look at.

A checker calls the answer on several random cases, so an answer that is right in one case, one entry or one
shape is not taken for right. It never raises on a wrong answer: it prints one sentence and returns False.
"""

from .dualstylegan import q05_1, q05_2, q05_3, q05_4
from .fast_networks import q04_1, q04_2, q04_3, q04_4
from .gram_and_layers import q01_1, q01_2, q01_3, q01_4, q02_1, q02_2, q02_3, q02_4
from .metrics import q07_1, q07_2, q07_3, q07_4, q07_5
from .optimizers import q03_1, q03_2, q03_3, q03_4, q03_5

__all__ = [
    "q01_1", "q01_2", "q01_3", "q01_4", "q02_1", "q02_2", "q02_3", "q02_4",
    "q03_1", "q03_2", "q03_3", "q03_4", "q03_5",
    "q04_1", "q04_2", "q04_3", "q04_4",
    "q05_1", "q05_2", "q05_3", "q05_4",
    "q07_1", "q07_2", "q07_3", "q07_4", "q07_5",
]  # fmt: skip
