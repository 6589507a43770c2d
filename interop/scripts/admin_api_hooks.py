"""What schemathesis makes up leads to the origin of this test, and to no other machine and no file of this one."""

import os
import zlib

import schemathesis

ORIGIN = os.environ["MILLRACE_ORIGIN"]


def tamed(source):
    if isinstance(source, str) and source.startswith(("http://", "https://", "/", "file:")):
        return f"{ORIGIN}/{zlib.crc32(source.encode('utf-8', 'surrogatepass')):08x}.bin"
    return source


@schemathesis.hook
def before_call(context, case, kwargs):
    body = case.body
    if not isinstance(body, dict) or not isinstance(body.get("sources"), list):
        return
    body = body | {"sources": [tamed(source) for source in body["sources"]]}
    # Base64 that is made up is no torrent: mostly without it, so that something is added, too.
    if body["sources"] and isinstance(body.get("metainfo"), str) and zlib.crc32(body["metainfo"].encode()) % 4:
        del body["metainfo"]
    case.body = body
