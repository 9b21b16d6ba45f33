"""`python -m bulk_updater` is `bulk-updater`."""

from bulk_updater.cli import main

if __name__ == "__main__":
    main()
