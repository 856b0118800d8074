"""Tables of results that one command makes: plans, their runs, and the Markdown."""
