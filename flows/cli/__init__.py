"""The command line: run, plan, ls, show, diff, report, series, verify, gc, up, down, status."""
