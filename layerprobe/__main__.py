"""`python -m layerprobe`: the same as the console script."""

from layerprobe.cli import main

if __name__ == "__main__":
    main()
