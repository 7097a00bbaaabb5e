"""What a model learns from few pairs of one's own: the table of docs/your-data.md. `python -m bench.your_data`."""
