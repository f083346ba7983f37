from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """WhiteNoise for an ASGI server: each file is sent in one piece.

    WhiteNoise streams files; under ASGI Django would switch to a thread for each block, and warn.
    """

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        streamed = WhiteNoiseMiddleware.serve(static_file, request)
        try:
            return HttpResponse(
                streamed.getvalue(), status=streamed.status_code, headers=dict(streamed.headers)
            )
        finally:
            streamed.close()
