"""Signs requests by botocore, as a second opinion on our signatures.

Standard input: {"access_key", "secret", "region", "requests": [{"method", "url", "timestamp", "headers": [[name, value]]}]}.
Standard output: a JSON list of {"canonical_request", "signature"}.
"""

import json
import sys

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


def sign(auth, described):
    request = AWSRequest(method=described["method"], url=described["url"])
    for name, value in described["headers"]:
        request.headers[name] = value
    request.context["timestamp"] = described["timestamp"]
    canonical = auth.canonical_request(request)
    to_sign = auth.string_to_sign(request, canonical)
    return {"canonical_request": canonical, "signature": auth.signature(to_sign, request)}


def main():
    asked = json.load(sys.stdin)
    auth = S3SigV4Auth(Credentials(asked["access_key"], asked["secret"]), "s3", asked["region"])
    json.dump([sign(auth, described) for described in asked["requests"]], sys.stdout)


main()
