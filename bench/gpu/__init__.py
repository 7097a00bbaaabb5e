"""What a machine with a GPU is asked: `python -m bench.gpu --out DIR --minutes M`.

The command is __main__, each part a module with `run(record)` in a process of its own; docs/gpu.md says what they show.
"""
