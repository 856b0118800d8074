"""Requests made from the API's own description: schemathesis finds no 5xx and no reply it lacks."""

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from gazetell.serve.api import create_app

schema = schemathesis.openapi.from_dict(create_app({}).openapi())


@schema.parametrize()
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_reply_is_as_described(case, server_url):
    reply = case.call(base_url=server_url)
    assert reply.status_code < 500
    # That a string is a picture file, or a look that is still kept, no schema can say.
    case.validate_response(reply, excluded_checks=[positive_data_acceptance])
