"""Reads one scan for the server, with limits: `python -m ...`. The order comes as a line
of JSON on standard input, the answer goes as one to standard output.
"""

import json
import os
import sys
from typing import Any

from trivox.service.serve.review.scans import ScanOrder, carry_out
from trivox.service.serve.work.child import LARGEST, failure_of
from trivox.service.serve.work.limits import limit_this_process, set_apart
from trivox.service.serve.work.wording import spoken


def said_of(order: ScanOrder) -> dict[str, Any]:
    """What the server is told of an order."""
    try:
        answer = carry_out(order)
    except BaseException as error:
        code, detail = failure_of(error)
        return {"failed": code, "detail": spoken(detail, order.words)}
    return {"done": json.loads(answer.model_dump_json())}


def main() -> None:
    """Answer the order, and let nothing else be heard."""
    parent = os.getppid()
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (1, 2):
        os.dup2(nowhere, standard)
    set_apart(parent)
    order = ScanOrder.model_validate_json(sys.stdin.read())
    limit_this_process(memory=order.memory, seconds=order.seconds, largest=LARGEST)
    json.dump(said_of(order), answer)
    answer.close()


if __name__ == "__main__":
    main()
