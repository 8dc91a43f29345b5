"""One self-contained HTML page about a run, its plots, and its tables as Markdown."""

PAGE = "report.html"  # the page among the files of its artifact
