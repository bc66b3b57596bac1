"""Prepares a moto server in IAM mode: a user whose key may use S3, a bucket, and the objects of the test.

Arguments: the server's URL. Standard output: {"access_key", "secret"}.
"""

import json
import sys

import boto3
from botocore.config import Config

url = sys.argv[1]


def client(service, key, secret):
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1})
    return boto3.client(
        service, endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret, config=config
    )


# The first three calls need no permission; after them the server checks every signature.
iam = client("iam", "setup", "setup")
iam.create_user(UserName="edge")
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
iam.put_user_policy(UserName="edge", PolicyName="s3", PolicyDocument=json.dumps(policy))
made = iam.create_access_key(UserName="edge")["AccessKey"]
key, secret = made["AccessKeyId"], made["SecretAccessKey"]

s3 = client("s3", key, secret)
s3.create_bucket(Bucket="assets")
s3.put_object(Bucket="assets", Key="page.html", Body=b"hello", ContentType="text/html", CacheControl="no-cache")
s3.put_object(Bucket="assets", Key="meta.txt", Body=b"meta", CacheControl="max-age=600", Metadata={"owner": "ops"})
json.dump({"access_key": key, "secret": secret}, sys.stdout)
