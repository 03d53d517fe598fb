"""The service in a process that tests may kill: `trivox pacs watch` or `trivox node`, with
the stub for `trivox predict`.
"""

import sys

from clinic import STUB
from trivox.cli import main
from trivox.service.jobs import work

if __name__ == "__main__":
    work.PREDICT = (sys.executable, str(STUB))
    main()
