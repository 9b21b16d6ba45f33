"""Exit codes, for scripts.

0    every row settled well
1    finished; some rows are FAILED or INVALID
2    usage: the command cannot be carried out, and nothing was sent
3    stopped by an error that concerns the whole run; the same command goes on
4    the deadline was reached with rows left; the same command goes on
130  interrupted; the same command goes on
"""

from typing import Final

EXIT_BAD_ROWS: Final = 1
EXIT_USAGE: Final = 2
EXIT_STOPPED: Final = 3
EXIT_DEADLINE: Final = 4
EXIT_INTERRUPTED: Final = 130
