"""The script `bench`: run the command line and turn our errors into one sentence and an exit code."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `bench` and leave with its exit code."""
    from bench.cli import app
    from bench.errors import BenchError
    from bench.text import printable

    try:
        app()
    except BenchError as error:
        print(f"bench: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except MemoryError:
        print("bench: out of memory; choose a smaller --size, trunk or batch size.", file=sys.stderr)
        sys.exit(4)
    except RuntimeError as error:
        if "can't allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        print("bench: out of memory; choose a smaller --size, trunk or batch size.", file=sys.stderr)
        sys.exit(4)
    except KeyboardInterrupt:
        print("bench: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"bench: {error.strerror or error}{where}.", file=sys.stderr)
        sys.exit(4)


if __name__ == "__main__":
    main()
