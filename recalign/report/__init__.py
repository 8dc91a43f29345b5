"""One self-contained HTML page about a run, its plots, and its tables as Markdown."""
