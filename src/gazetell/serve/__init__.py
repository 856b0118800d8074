"""Trained models as a service: a REST API, and a page where people look and ask.

A request passes ``guard`` (limits, token, errors), ``api`` (what is asked and answered) and
``engine`` (many requests in one forward pass); ``server`` starts them.
"""
