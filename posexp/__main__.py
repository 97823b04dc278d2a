"""python -m posexp, and the command `posexp`."""

import sys


def main() -> int:
    """Run posexp.cli.main. Ctrl-C while that is imported ends in one line, too."""
    try:
        from posexp.cli import main
    except KeyboardInterrupt:
        print("posexp: interrupted; repeat the command to go on", file=sys.stderr)
        return 130
    return main.main()


if __name__ == "__main__":
    sys.exit(main())
