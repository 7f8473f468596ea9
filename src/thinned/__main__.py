"""`python -m thinned` is the command `thinned`."""

from thinned.cli import main

if __name__ == "__main__":
    main()
