"""`python -m holdtrue.cli` is `holdtrue`."""

from holdtrue.cli import main

if __name__ == "__main__":
    main()
