"""``python -m fleetcache``, and the program ``fleetcache``."""

import sys


def main() -> int:
    """Run the command of the process; return its exit code, after Ctrl-C while modules are imported, too."""
    try:
        from fleetcache.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
