"""`python -m shards.order`: prints the order of samples, or how well it is shuffled."""

from shards.errors import run_main
from shards.order.command import main

if __name__ == "__main__":
    run_main(main)
