"""Exercise checkers: ``checks.q01_1(my_gram)`` says what is right, or what to look at.

Each takes the reader's answer, prints one sentence and says whether it is right; it never raises.
"""

from .q01 import *  # noqa: F403
from .q02 import *  # noqa: F403
from .q03 import *  # noqa: F403
from .q03b import *  # noqa: F403
from .q04 import *  # noqa: F403
from .q05 import *  # noqa: F403
from .q06 import *  # noqa: F403
from .q07 import *  # noqa: F403
