"""Does the server in this container answer? Exit code 0 if so.

TRIVOX_HEALTH_URL: what is asked; unset: `/healthz` at TRIVOX_PORT on this machine. The
certificate of https is not checked: it is of the server's name, not of this machine.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request

PORT = os.environ.get("TRIVOX_PORT", "8470")
USUAL = f"http://127.0.0.1:{PORT}/healthz"
SECONDS = 4


def main() -> int:
    """The exit code."""
    url = os.environ.get("TRIVOX_HEALTH_URL", USUAL)
    context = None
    if url.startswith("https:"):
        context = ssl._create_unverified_context()
    direct = urllib.request.ProxyHandler({})
    opener = urllib.request.build_opener(
        direct, urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(url, timeout=SECONDS) as answer:
            return 0 if answer.status == 200 else 1
    except (OSError, ValueError) as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
