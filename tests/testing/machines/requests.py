"""Requests to a server of this machine as nobody sends them who means well."""

from __future__ import annotations

import http.client
import json

WAIT_S = 120


def ask(address, path, data=b"", method="POST", **headers):
    """(status, what was answered) of one request, whatever a well-behaved client would not send."""
    host = address.split("/")[2]
    connection = http.client.HTTPConnection(host, timeout=WAIT_S)
    connection.putrequest(method, path, skip_host="Host" in headers)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    for name, value in ({"Content-Length": str(len(data))} | given).items():
        connection.putheader(name, value)
    connection.endheaders(data)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, json.loads(body) if answer.headers.get_content_type() == "application/json" else body


def form(**files):
    """(body, headers) of a form with files."""
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="{name}"; filename="../../{name}"\r\n\r\n'.encode() + data
        for name, data in files.items()
    ]
    return b"\r\n".join([*parts, b"--edge--\r\n"]), {"Content_Type": "multipart/form-data; boundary=edge"}
