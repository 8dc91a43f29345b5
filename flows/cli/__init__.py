"""The command line: run, plan, fetch, ls, show, diff, report, series, verify, gc, up, down."""
