"""A trained model as a service: a REST API and a page where people look and ask.

- ``app``: the routes; ``schemas``: what they take and give; ``intake``: reading requests
- ``engine``: requests gathered into batches, one thread that owns the models
- ``looks``: pictures that were looked at, kept for a while
- ``guard``: limits, headers and the token, before a request is read
- ``problems``: every error as problem JSON; ``monitor``: figures for Prometheus
"""
